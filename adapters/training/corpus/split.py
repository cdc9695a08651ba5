"""Which texts are learnt from and which are kept to test with.

The order of the texts is that of their hashes, the same in every language and on every machine. Each language gives
its first texts to test, the next to dev, the rest to train. All clips of a text go where it goes, so no sentence is
in two splits; a text of two languages may still fall on different sides of their thresholds, and is then left out
where it would do harm.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from adapters.training.manifest import Split

DEV_SHARE = 0.08
TEST_SHARE = 0.08
TEST_SECONDS = 120.0

_STRICTNESS: dict[Split, int] = {"train": 0, "dev": 1, "test": 2}


def text_hash(text: str) -> str:
    """The key by which texts are ordered: SHA-256 of the normalised text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def split_language(seconds: dict[str, float], *, test_seconds: float = TEST_SECONDS) -> dict[str, Split]:
    """Normalised text -> split, for one language. `seconds`: text -> length of all of its clips together.

    test takes texts until it has both 8 % and ``test_seconds``, dev until it has 8 %.
    """
    total = sum(seconds.values())
    wanted: list[tuple[Split, float]] = [("test", max(TEST_SHARE * total, test_seconds)), ("dev", DEV_SHARE * total)]
    splits: dict[str, Split] = {}
    taken = 0.0
    for text in sorted(seconds, key=text_hash):
        while wanted and taken >= wanted[0][1]:
            wanted.pop(0)
            taken = 0.0
        splits[text] = wanted[0][0] if wanted else "train"
        taken += seconds[text]
    return splits


def split_texts(clips: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str], Split | None]:
    """(language, normalised text) -> split, of clips given as (language, text, seconds).

    None where the text is kept for a stricter purpose in another language (test before dev before train): such a
    clip belongs in no split.
    """
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for language, text, length in clips:
        seconds[language][text] += length
    splits = {language: split_language(dict(texts)) for language, texts in seconds.items()}
    kept = strictest(told for texts in splits.values() for told in texts.items())
    return {
        (language, text): split if split == kept[text] else None
        for language, texts in splits.items()
        for text, split in texts.items()
    }


def strictest(told: Iterable[tuple[str, Split | None]]) -> dict[str, Split]:
    """Text -> the strictest split that it is told to be in (test before dev before train), of those told one."""
    found: dict[str, Split] = {}
    for text, split in told:
        if split is not None and _STRICTNESS[split] >= _STRICTNESS[found.get(text, "train")]:
            found[text] = split
    return found
