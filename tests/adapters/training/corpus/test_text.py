from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import DataError
from adapters.training.corpus.text import ALPHABETS, UnusableText, normalise, rare_letters


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("be", "Раз'еднаны, «вусаты» Яўген.", "раз'еднаны вусаты яўген"),
        ("be", "Аб’ём ёсць!", "аб'ём ёсць"),
        ("bg", "Ѝ каза: „Здра̀вей“", "ѝ каза здравей"),
        ("ca", "La col·lecció d’en Pau — l'hivern.", "la col·lecció d'en pau l'hivern"),
        ("ca", "coŀlegi · punt", "col·legi punt"),
        ("cs", "Občané. Zachovejte klid…", "občané zachovejte klid"),
        ("da", "Et Æble, en rød-grøn å", "et æble en rød grøn å"),
        ("el", "Ένας μεγάλος ΣΚΎΛΟΣ· ναι;", "ένας μεγάλος σκύλος ναι"),
        ("en", "Don’t  'quote' me - it's rock-n-roll!", "don't quote me it's rock n roll"),
        ("en", "at [@]", "at"),
        ("es", "¿Qué? ¡Un pingüino, mañana!", "qué un pingüino mañana"),
        ("es", "¿En que carpeta desea guardar el mensaje ?", "en que carpeta desea guardar el mensaje"),
        ("fr", "L`heure : un Œuf, s’il vous plaît ?", "l'heure un œuf s'il vous plaît"),
        ("fr", "Un téléphone. Allo ? Allo ?", "un téléphone allo allo"),
        ("it", "Perché no? C'è l’uomo: un po' di più.", "perché no c'è l'uomo un po di più"),
        ("nl", "Foto’s, 's morgens, ﬁjn ĳs", "foto's s morgens fijn ijs"),
        ("ro", "Şi ţara: s-a dus în cer", "și țara s a dus în cer"),
        ("ru", "Ёлка — э́то дерево. Йод.", "елка это дерево йод"),
        ("cs", unicodedata.normalize("NFD", "Příšerně žluťoučký"), "příšerně žluťoučký"),
    ],
)
def test_normalise(language: str, raw: str, expected: str) -> None:
    assert normalise(raw, language) == expected


@pytest.mark.parametrize(
    ("language", "raw", "reason"),
    [
        ("en", "[ascending tones]", "stage direction"),
        ("en", "<beep ascending>", "stage direction"),
        ("en", "Leave your message. (simple tone sound plays)", "stage direction"),
        ("es", "Sus saludos [temporales] estan en uso", "stage direction"),
        ("fr", "Appuyez sur 1", "digits"),
        ("fr", "moins ½ degré", "digits"),
        ("it", "La chiamata non pu? essere completata", "lost letters"),
        ("it", "La conferenza ? piena.", "lost letters"),
        ("es", "contrase?a", "lost letters"),
        ("es", "contrase\ufffda", "lost letters"),
        ("en", "press * to pause", "spoken symbols"),
        ("en", "five € or $", "spoken symbols"),
        ("ru", "Буква D.", "foreign letters"),
        ("cs", "Подожди, na semaforu", "foreign letters"),
        ("en", " ... ", "empty text"),
        ("en", "", "empty text"),
    ],
)
def test_texts_that_cannot_be_trusted_say_why(language: str, raw: str, reason: str) -> None:
    with pytest.raises(UnusableText) as caught:
        normalise(raw, language)
    assert caught.value.reason == reason
    assert repr(raw) in str(caught.value)


def test_a_language_without_alphabet_names_those_with_one() -> None:
    with pytest.raises(DataError, match="'xx'; there are be, bg"):
        normalise("abc", "xx")


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(sorted(ALPHABETS)))
def test_what_is_normal_stays(raw: str, language: str) -> None:
    try:
        text = normalise(raw, language)
    except UnusableText:
        return
    assert text == unicodedata.normalize("NFC", text) == text.strip() != ""
    assert "  " not in text
    assert normalise(text, language) == text


def test_rare_letters_are_those_outside_the_alphabet_and_seldom() -> None:
    texts = ["raücher", "été"] + ["ångström"] * 5
    assert rare_letters(texts, "en") == {"ü", "é"}
    assert rare_letters(texts, "fr") == set()
