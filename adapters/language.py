"""Which language is meant? The same language or none, never the nearest one.

langcodes parses, validates and normalises tags and knows the names. It is asked neither for its closest match, which
turns ``lb`` into ``de`` and ``be`` into ``ru``, nor for its prefix search on names, by which "German food" is ``de``.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from langcodes import Language
from language_data.names import load_trie, normalize_name
from language_data.util import data_filename

# An individual language and the macrolanguage that everyone names it by: the standard language under both codes.
# Macrolanguages of several standards (Lahnda, Quechua, Akan, Cree ...) are not here: their members stay apart.
_MACROLANGUAGES = {
    "als": "sq", "arb": "ar", "azj": "az", "cmn": "zh", "ekk": "et", "khk": "mn", "kmr": "ku", "lvs": "lv", "nb": "no",
    "npi": "ne", "ory": "or", "pbu": "ps", "pes": "fa", "plt": "mg", "swh": "sw", "uzn": "uz", "ydd": "yi", "zlm": "ms",
    "zsm": "ms",
}  # fmt: skip
# What CLDR writes as another language in a region or a script, and is a language of its own in ISO 639-3.
_APART = {"cnr": "cnr", "hbs": "sh", "prs": "prs", "sh": "sh", "swc": "swc"}
_APART_NAMES = {"fa-AF": "prs", "sr-ME": "cnr", "sw-CD": "swc"}
_NOT_A_LANGUAGE = frozenset({"mis", "mul", "root", "und", "zxx"})
_NO_QUERY = ("i-default", "i_default")  # "whatever the reader may know", which langcodes takes for English
_LONGEST_QUERY = 80


def language_key(query: str) -> str | None:
    """The key that queries and adapters meet under, or None where ``query`` means no language.

    ``de``, ``deu``, ``ger``, ``de-AT``, ``German`` and ``Deutsch`` all give ``de``: BCP 47 and ISO 639 codes, English
    and native names. Regions and variants are dropped. A script is kept where it is not the one that the language is
    mostly written in: ``sr-Latn``, but ``sr`` for ``sr-Cyrl``.
    """
    tag = _parse(query)
    if tag is None:
        return None
    language, script, _ = tag
    return f"{language}-{script}" if script else language


def language_tag(query: str) -> str | None:
    """The key with the region, where ``query`` names one: ``pt-BR`` for ``por_BR`` and for ``Brazilian Portuguese``."""
    tag = _parse(query)
    return "-".join(filter(None, tag)) if tag else None


def names_script(query: str) -> bool:
    """Whether ``query`` says in which script, as ``sr-Latn`` and ``sr-Cyrl`` do and ``sr`` does not."""
    tag = _tag(query.strip()) or _named(query.strip())
    return tag is not None and tag.script is not None


def is_macrolanguage(key: str) -> bool:
    """Whether what is known under ``key`` goes under another code as well, such as ``ar`` for ``arb``."""
    return key in _MACROLANGUAGES.values()


def language_name(tag: str) -> str:
    """The English name of a tag: ``German``, ``Serbian (Latin)``; the tag itself where it means no language."""
    key = language_key(tag)
    return Language.get(key, normalize=False).display_name("en") if key else tag


@lru_cache(maxsize=4096)
def _parse(query: str) -> tuple[str, str | None, str | None] | None:
    """(language, script unless it is the usual one, region)."""
    query = query.strip()
    if not 0 < len(query) <= _LONGEST_QUERY or any(unicodedata.category(c) in ("Cc", "Cs") for c in query):
        return None
    if "," in query or query.lower().startswith(_NO_QUERY):  # several are not one
        return None
    tag = _tag(query) or _named(query)
    if tag is None or tag.language is None:
        return None
    language = _MACROLANGUAGES.get(tag.language, tag.language)
    if language in _NOT_A_LANGUAGE or language.startswith("x-"):
        return None
    usual = Language.make(language=language).maximize().script
    return language, None if tag.script == usual else tag.script, tag.territory


def _tag(query: str) -> Language | None:
    try:
        tag = Language.get(query)
    except ValueError:  # langcodes' LanguageTagError
        return None
    if not tag.is_valid():
        return None
    stated = query.replace("_", "-").split("-")[0].lower()
    if stated in _APART:
        return Language.make(language=_APART[stated], script=Language.get(query, normalize=False).script)
    return tag


def _named(query: str) -> Language | None:
    """By its whole name, in English or in the language itself."""
    name = normalize_name(query)
    for spoken in ("en", "und"):
        code = _code_of(name, spoken)
        if code is not None and (spoken == "en" or name == normalize_name(Language.get(code).autonym())):
            code = _APART_NAMES.get(code, code)
            return Language.get(code, normalize=code not in _APART)
    return None


def _code_of(name: str, spoken: str) -> str | None:
    """The code behind exactly this name; ``spoken`` is the language of the name, ``und`` for any."""
    trie = _names(spoken)
    return trie[name][0].decode("utf-8") if name in trie else None


@lru_cache(maxsize=2)
def _names(spoken: str) -> dict[str, list[bytes]]:
    """A mapping in the manner of a dict, on disk; absent names are not looked up by prefix."""
    trie: dict[str, list[bytes]] = load_trie(data_filename(f"trie/{spoken}/name_to_language.marisa"))
    return trie
