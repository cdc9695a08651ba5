from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import DataError
from adapters.training.corpus.sources import (
    LANGUAGES,
    SOURCES,
    asterisk_texts,
    lua_dialogs,
    packages_for,
    tuxpaint_texts,
)
from tests.adapters.training.corpus.small_tree import Tree

PARSERS = {source.name: source.recordings for source in SOURCES}


def test_every_language_has_a_source_and_an_alphabet() -> None:
    assert {language for source in SOURCES for language in source.languages} == set(LANGUAGES)
    assert packages_for(("nl",)) == ("fillets-ng-data", "fillets-ng-data-nl", "tuxpaint-stamps-default")


def test_asterisk_listings_in_any_encoding() -> None:
    expected = {"digits/1": "un", "é": "déjà: vu"}
    listing = "; Core: Sounds\n\ndigits/1: un\r\né:  déjà: vu \nno colon\n"
    assert asterisk_texts(b"\xef\xbb\xbf" + listing.encode()) == expected
    assert asterisk_texts(listing.encode("latin-1")) == expected


def test_asterisk(tree: Tree) -> None:
    tree.asterisk("fr", {"digits/1": "Un", "gone": "Parti!!"})
    found = {recording.name: recording for recording in PARSERS["asterisk"](tree.root, "fr")}
    assert found["digits--1"].text == "Un"
    assert found["digits--1"].path.is_file()
    assert found["digits--1"].voice == "asterisk-someone"
    assert found["digits--1"].licence == "CC-BY-SA-3.0"
    assert not found["gone"].path.exists()


def test_asterisk_in_russian_has_a_licence_of_its_own(tree: Tree) -> None:
    tree.asterisk("ru", {"activated": "Активировано"})
    assert [recording.licence for recording in PARSERS["asterisk"](tree.root, "ru")] == ["CC-BY-3.0"]


def test_tuxpaint_descriptions() -> None:
    content = b"A wombat.\r\nfr.utf8=Un wombat.\nes.utf8= Un = wombat \nnonsense\n"
    assert tuxpaint_texts(content) == {"en": "A wombat.", "fr": "Un wombat.", "es": "Un = wombat"}
    assert tuxpaint_texts(b"") == {}


def test_tuxpaint(tree: Tree) -> None:
    tree.tuxpaint("animals/wombat", "A wombat.", {"fr": "Un wombat.", "ca": "Un uombat."})
    (tree.root / "usr/share/tuxpaint/stamps/animals/wombat.ogg").write_bytes(b"the noise it makes")
    tree.tuxpaint("symbols/alphabets/w", "The letter W.", {"ca": "La lletra W.", "fr": "La lettre W."})
    assert [(r.name, r.text) for r in PARSERS["tuxpaint"](tree.root, "en")] == [
        ("animals--wombat", "A wombat."),
        ("symbols--alphabets--w", "The letter W."),
    ]
    assert [r.text for r in PARSERS["tuxpaint"](tree.root, "ca")] == ["Un uombat.", None]
    assert [r.text for r in PARSERS["tuxpaint"](tree.root, "fr")] == ["Un wombat.", "La lettre W."]


LUA = r"""
dialogId("a-1", "font_small", "Say \"hi\".")
dialogStr("Řekni \"ahoj\"\n a \065.")

-- dialogId("old", "font_small", "Old")
dialogId("b-2", "font_statue",
    "Two lines")
dialogStr(
    "Dva řádky")
dialogStr("of nobody")
"""


def test_lua_dialogs() -> None:
    assert lua_dialogs(LUA) == {
        "a-1": ("font_small", 'Řekni "ahoj"\n a A.'),
        "b-2": ("font_statue", "Dva řádky"),
    }


def test_fillets(tree: Tree) -> None:
    tree.fillets("city", "cs", LUA, {"a-1": 1.0, "c-3": 1.0})
    found = {recording.name: recording for recording in PARSERS["fillets"](tree.root, "cs")}
    assert found.keys() == {"city--a-1", "city--b-2", "city--c-3"}
    assert found["city--a-1"].voice == "fillets-cs-small"
    assert found["city--b-2"].voice is None
    assert not found["city--b-2"].path.exists()
    assert found["city--c-3"].text is None
    assert {recording.licence for recording in found.values()} == {"GPL-2.0-only"}


@pytest.mark.parametrize(("source", "package"), [("asterisk", "asterisk-core-sounds-es"), ("tuxpaint", "tuxpaint-")])
def test_a_missing_folder_names_its_package(tmp_path: Path, source: str, package: str) -> None:
    with pytest.raises(DataError, match=f"it comes with the package {package}"):
        list(PARSERS[source](tmp_path, "es"))
