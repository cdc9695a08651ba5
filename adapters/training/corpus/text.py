"""Raw transcripts -> normalised text: NFC, lower case, no punctuation, letters of the language alone.

`normalise` is what references and hypotheses go through alike, so that error rates compare like with like.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from adapters.errors import DataError

_LATIN = "abcdefghijklmnopqrstuvwxyz"

ALPHABETS: dict[str, str] = {
    "be": "абвгдеёжзійклмнопрстуўфхцчшыьэюя",
    "bg": "абвгдежзийклмнопрстуфхцчшщъьюяѝ",
    "ca": _LATIN + "àçèéíïòóúü·",
    "cs": _LATIN + "áčďéěíňóřšťúůýž",
    "de": _LATIN + "äöüß",
    "da": _LATIN + "æøåé",
    "el": "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",
    "en": _LATIN,
    "es": _LATIN + "áéíñóúü",
    "fr": _LATIN + "àâæçèéêëîïôœùûüÿ",
    "it": _LATIN + "àèéìíòóùú",
    "nl": _LATIN + "áèéêëíïóöúü",
    "ro": _LATIN + "ăâîșț",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
}
"""The letters of each language; any other needs to be frequent to be kept (`rare_letters`)."""

APOSTROPHES = frozenset({"be", "ca", "en", "fr", "it", "nl"})
"""Languages that write an apostrophe inside words, where it is kept."""

# Typed for the apostrophe: quotation marks, primes, spacing accents, modifier letters.
_APOSTROPHE = str.maketrans(dict.fromkeys("’‘‛ʼʹ´`′＇", "'"))
_LETTER_APOSTROPHE = "ʼʹ"
"""Those that are letters, at the ends of words too; in ASCII a quotation mark there looks the same."""
_OTHER_APOSTROPHE = {code: to for code, to in _APOSTROPHE.items() if chr(code) not in _LETTER_APOSTROPHE}
_OTHER_APOSTROPHE |= dict.fromkeys(map(ord, "᾽᾿"), "'")  # of older Greek, where a vowel is left out
_GERESH = re.compile(r"(?<=[א-ת])'(?=[א-ת])")
_GERSHAYIM = re.compile(r"(?<=[א-ת])[\"“”„](?=[א-ת])")
"""As they are typed, between Hebrew letters."""
_ZERO = "〇"  # of Chinese and Japanese: a number to Unicode, and written as the other numerals are, which are letters
_ABOVE_VOWELS = "՛՜՞"  # Armenian's, within the word that is stressed
_DOTLESS = frozenset({"az", "crh", "gag", "tr"})
"""Languages in which the small letter of I has no dot."""
_SYMBOLS = ("Sc", "Sm", "So")
_SPOKEN = "%&@#§/\\*^_|~"
_DIRECTION = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>|\{[^}]*\}")
# Letters lost in a change of encoding: `pu?`, `cos? come`, `non ? piena`, `contrase?a`.
_LOST_LETTER = re.compile(r"\w\?+\w|\s\?+\w|[\w\s]\?+\s+(?=[^\W\d_])(?P<next>\w)|�")
_LIGATURES = re.compile("[ﬀ-ﬆĳĲŀĿ]")
_STRESS = "\u0300\u0301"


class UnusableText(DataError):
    """A transcript that cannot be trusted to be what is said. `reason` is one of a few, for counting."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text!r}")
        self.reason = reason


def normalise(text: str, language: str) -> str:
    """`text` in the form in which it is learnt and compared; never empty.

    Raises:
        UnusableText: a stage direction, a digit, a symbol that is spoken, a lost letter, a letter of another
            script, or nothing that is said.
    """
    if language not in ALPHABETS:
        raise DataError(f"no alphabet for the language {language!r}; there are {', '.join(ALPHABETS)}")
    original = text
    text = _without_directions(text)
    # After a question that ends there, the next word has a capital.
    if any(not (lost["next"] or "").isupper() for lost in _LOST_LETTER.finditer(text)):
        raise UnusableText("lost letters", original)
    text = _LIGATURES.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHE).lower()
    text = unicodedata.normalize("NFC", _spelling(text, language))
    words = "".join(_kept(text, index, language, original) for index in range(len(text)))
    text = " ".join(words.split())
    if not text:
        raise UnusableText("empty text", original)
    return text


def normalise_any(text: str, language: str) -> str:
    """As :func:`normalise`, in a language whose alphabet nobody has told: letters and marks of any script, with what
    is spelt as part of a word: apostrophes and joiners within, modifier letters and tone letters at its ends too,
    Hebrew's geresh and gershayim.

    Raises:
        UnusableText: a stage direction, a digit, a symbol that is spoken, a lost letter, or nothing that is said.
    """
    original = text
    if "\N{REPLACEMENT CHARACTER}" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UnusableText("lost letters", original)
    text = unicodedata.normalize("NFC", _without_directions(text)).translate(_OTHER_APOSTROPHE)
    if language in _DOTLESS:
        text = text.replace("I", "ı")
    text = unicodedata.normalize("NFC", text.replace("İ", "i").lower())  # lower() would keep the dot as a mark
    text = _GERSHAYIM.sub("״", _GERESH.sub("׳", text))
    kept = []
    for index, character in enumerate(text):
        before, after = text[index - 1 : index], text[index + 1 : index + 2]
        category = unicodedata.category(character)
        beside = _spelt(before) or _spelt(after)
        if character in _LETTER_APOSTROPHE:
            kept.append("'" if beside else " ")
        elif _in_word(character, before, after):
            kept.append(character)
        elif category[0] == "N":
            raise UnusableText("digits", original)
        elif category in _SYMBOLS or character in _SPOKEN or (category == "Sk" and beside):
            raise UnusableText("spoken symbols", original)
        elif (category[0] != "C" or character.isspace()) and character not in _ABOVE_VOWELS:
            kept.append(" ")
    text = " ".join("".join(kept).split())
    if not text:
        raise UnusableText("empty text", original)
    return text


def _in_word(character: str, before: str, after: str) -> bool:
    """Whether it spells the word that it stands in or at the end of, between these two."""
    if _is_letter(character):
        return True
    if _is_modifier(character):
        return _spelt(before) or _spelt(after)
    return _spelt(before) and (character == "׳" or (character in "'\u200c\u200d״" and _spelt(after)))


def _spelt(character: str) -> bool:
    return character != "" and (_is_letter(character) or _is_modifier(character))


def _is_letter(character: str) -> bool:
    """Or a mark on one."""
    return unicodedata.category(character)[0] in "LM" or character == _ZERO


def _is_modifier(character: str) -> bool:
    """Tone letters, and others that Unicode counts among symbols though they spell words."""
    name = unicodedata.name(character, "")
    return unicodedata.category(character) == "Sk" and name.startswith("MODIFIER LETTER")


def _without_directions(text: str) -> str:
    """Brackets that say nothing are none; those that do say what is not spoken."""
    if any(any(map(str.isalnum, direction)) for direction in _DIRECTION.findall(text)):
        raise UnusableText("stage direction", text)
    return _DIRECTION.sub(" ", text)


def _spelling(text: str, language: str) -> str:
    """Different ways to type the same word made one."""
    if language == "ro":
        return text.translate(str.maketrans("şţ", "șț"))
    if language in ("ru", "bg", "be"):
        # A stress mark is a reader's aid, й and ѝ are letters: composed by now, so that none of these is theirs.
        text = "".join(character for character in text if character not in _STRESS)
        return text.replace("ё", "е") if language == "ru" else text  # ё is optional in Russian, and used unevenly
    if language != "da":
        text = text.replace("æ", "ae")
    return text if language == "fr" else text.replace("œ", "oe")


def _kept(text: str, index: int, language: str, original: str) -> str:
    """What stands for ``text[index]``: itself, a space, or nothing."""
    character = text[index]
    alphabet = ALPHABETS[language]
    category = unicodedata.category(character)
    if character in alphabet and character.isalpha():
        return character
    if character.isspace() or category[0] == "Z" or category == "Pd":
        return " "
    if category[0] == "N":
        raise UnusableText("digits", original)
    if category[0] in "LM":
        if category == "Mn" or _script(character) != _script(alphabet[0]):
            raise UnusableText("foreign letters", original)
        return character
    inside = 0 < index < len(text) - 1 and text[index - 1].isalpha() and text[index + 1].isalpha()
    if character == "'":
        return character if inside and language in APOSTROPHES else "" if inside else " "
    if character == "·" and language == "ca" and inside and text[index - 1] == text[index + 1] == "l":
        return character
    if category in _SYMBOLS or character in _SPOKEN:
        raise UnusableText("spoken symbols", original)
    return "" if category[0] == "C" else " "


def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0]


def rare_letters(texts: Iterable[str], language: str, *, at_least: int = 5) -> frozenset[str]:
    """Letters outside the language's alphabet that occur fewer than `at_least` times in `texts`."""
    counts = Counter(character for text in texts for character in text)
    allowed = {*ALPHABETS[language], " ", "'"}
    return frozenset(letter for letter, count in counts.items() if letter not in allowed and count < at_least)
