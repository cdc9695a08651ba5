import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langcodes import Language

from adapters.language import language_key, language_name, language_tag


@pytest.mark.parametrize(
    ("queries", "key"),
    [
        (("de", "DE", " de ", "deu", "ger", "de-AT", "de_AT", "de-Latn-AT", "German", "german", "Deutsch"), "de"),
        (("zh", "cmn", "zho", "zh-cmn-Hans", "zh-CN", "Chinese", "Mandarin", "中文"), "zh"),
        (("ar", "arb", "ara", "Arabic", "العربية"), "ar"),
        (("fa", "pes", "Persian", "Farsi"), "fa"),
        (("no", "nb", "nob", "Norwegian", "Norwegian Bokmål", "norsk"), "no"),
        (("es", "spa", "es-419", "Spanish", "Castilian", "Español"), "es"),
        (("he", "iw", "heb", "Hebrew"), "he"),
        (("ro", "mo", "ron", "rum", "Romanian", "Moldavian"), "ro"),
        (("th", "tha", "Thai"), "th"),  # "Thai" has the form of a tag too
        (("sr", "sr-Cyrl", "srp", "Serbian"), "sr"),
        (("sr-Latn", "srp-Latn"), "sr-Latn"),
        (("zh-Hant", "Traditional Chinese"), "zh-Hant"),
        (("fil", "tl", "tgl"), "fil"),
    ],
)
def test_one_language_one_key(queries, key):
    assert {query: language_key(query) for query in queries} == dict.fromkeys(queries, key)


@pytest.mark.parametrize(
    "apart",
    [
        ("de", "lb", "nds", "gsw", "nl", "yi"),
        ("ru", "be", "uk", "rue"),
        ("es", "gl", "ca", "pt", "oc", "ast"),
        ("no", "nn", "da", "sv"),
        ("zh", "yue", "nan", "wuu", "hak"),
        ("ar", "arz", "apc", "ary"),
        ("fa", "prs", "tg"),
        ("sr", "hr", "bs", "sh", "cnr", "sl", "mk"),
        ("pa", "pnb", "lah"),
        ("sw", "swc"),
        ("ku", "ckb"),
        ("cs", "sk"),
    ],
)
def test_near_is_not_same(apart):
    assert [language_key(tag) for tag in apart] == list(apart)


@pytest.mark.parametrize(
    ("name", "key"), [("Dari", "prs"), ("Montenegrin", "cnr"), ("Congo Swahili", "swc"), ("Serbo-Croatian", "sh")]
)
def test_a_name_stays_as_far_apart_as_its_code(name, key):
    assert language_key(name) == key


@pytest.mark.parametrize(
    "query",
    ["", " ", "auto", "xx", "German food", "German English", "deutsches", "../de", "de/..", "de\0", "\0", "\ud800",
     "()", "*", "de,fr", "en,de", "i-default", "mul", "und", "zxx", "x-de", "Elvish", "de" * 500],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_no_language(query):
    assert language_key(query) is None
    assert language_tag(query) is None
    assert language_name(query) == query


def test_tag_keeps_the_region():
    assert language_tag("por_BR") == language_tag("Brazilian Portuguese") == "pt-BR"
    assert language_tag("zh-Hant-TW") == "zh-Hant-TW"
    assert language_tag("deu") == "de"


def test_names():
    assert language_name("de") == "German"
    assert language_name("deu-AT") == "German"
    assert language_name("sr-Latn") == "Serbian (Latin)"


@pytest.mark.parametrize(
    "code",
    ["en", "es", "fr", "it", "ru", "cs", "nl", "ro", "bg", "be", "ca", "da", "el", "de", "lb", "gl", "pl", "pt", "uk",
     "sv", "fi", "hu", "tr", "ja", "ko", "ar", "hi", "th", "vi", "id", "sw", "fa", "he", "sr", "hr", "sk", "sl", "zh"],
)  # fmt: skip
def test_english_and_native_names(code):
    assert language_key(Language.get(code).display_name("en")) == code
    assert language_key(Language.get(code).autonym()) == code


@given(st.text(max_size=100))
def test_any_text_is_a_language_or_none(query):
    key = language_key(query)
    assert key is None or language_key(key) == key


@given(st.from_regex(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?", fullmatch=True))
def test_tags_are_settled(query):
    tag = language_tag(query)
    assert tag is None or (language_tag(tag) == tag and language_key(tag) == language_key(query))


def test_hostile_queries_cost_nothing():
    start = time.perf_counter()
    for length in (10**6, 10**7):
        assert language_key("a-" * length) is None
    assert time.perf_counter() - start < 1
