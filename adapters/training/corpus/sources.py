"""Unpacked packages -> recordings with their raw transcripts; one parser a source.

A source is a family of packages made in the same way. Its parser finds the recordings of one language; what a
transcript says is judged later (text.py), and so is the sound (clip_audio.py).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import DataError


@dataclass(frozen=True)
class Recording:
    """A sound file and its transcript as found, before anything is judged."""

    path: Path
    name: str
    """Unique in its source and language; letters, digits, ``-`` and ``_``."""
    text: str | None
    """None where there is no transcript."""
    language: str
    source: str
    licence: str
    voice: str | None = None
    where: str = ""
    """Where it is listed, for messages."""


@dataclass(frozen=True)
class Source:
    """Where a family of packages has speech in which languages."""

    name: str
    languages: tuple[str, ...]
    packages: Callable[[str], tuple[str, ...]]
    """Language -> the packages needed."""
    recordings: Callable[[Path, str], Iterator[Recording]]
    """(root of the unpacked tree, language) -> recordings, in the order of their names."""


_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


def _plain(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)


def _folder(path: Path, package: str) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; it comes with the package {package}")
    return path


# --- Asterisk: telephone prompts, one studio voice a language, raw G.722 at 16 kHz ---

# From the packages' copyright files: the Russian prompts were given under CC BY, the others under CC BY-SA.
_ASTERISK_LICENCES = {"ru": "CC-BY-3.0"}


def _asterisk_packages(language: str) -> tuple[str, ...]:
    return f"asterisk-core-sounds-{language}", f"asterisk-core-sounds-{language}-g722"


def _asterisk(root: Path, language: str) -> Iterator[Recording]:
    package, sounds_package = _asterisk_packages(language)
    texts_file = root / "usr/share/doc" / package / f"core-sounds-{language}.txt.gz"
    if not texts_file.is_file():
        raise DataError(f"{texts_file}: no such file; it comes with the package {package}")
    folders = sorted(_folder(root / "usr/share/asterisk/sounds", sounds_package).glob(f"{language}_*"))
    if not folders:
        raise DataError(f"{root}/usr/share/asterisk/sounds/{language}_*: no such folder; see {sounds_package}")
    texts = asterisk_texts(gzip.decompress(texts_file.read_bytes()))
    for folder in folders:
        voice = f"asterisk-{folder.name.split('_')[-1].lower()}"  # en_US_f_Allison
        found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.g722")}
        for name in sorted({*texts, *found}):
            yield Recording(
                path=found.get(name, folder / f"{name}.g722"),
                name=_plain(name.replace("/", "--")),
                text=texts.get(name),
                language=language,
                source="asterisk",
                licence=_ASTERISK_LICENCES.get(language, "CC-BY-SA-3.0"),
                voice=voice,
            )


def asterisk_texts(content: bytes) -> dict[str, str]:
    """Name -> text of a ``core-sounds-XX.txt``: lines of ``name: text``, comments behind a semicolon."""
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        decoded = content.decode("latin-1")
    texts: dict[str, str] = {}
    for line in decoded.splitlines():
        name, separator, text = line.partition(":")
        if separator and not line.startswith(";"):
            texts.setdefault(name.strip(), text.strip())
    return texts


# --- Tux Paint: descriptions of the pictures to stamp with ---

_TUXPAINT = "tuxpaint-stamps-default"
# Where a voice does not say what is written: in Catalan the letter alone, and not "la lletra w".
_TUXPAINT_MISREAD = {"ca": "symbols/alphabets/"}


def _tuxpaint(root: Path, language: str) -> Iterator[Recording]:
    stamps = _folder(root / "usr/share/tuxpaint/stamps", _TUXPAINT)
    ending = "_desc.ogg" if language == "en" else f"_desc_{language}.ogg"
    for path in sorted(stamps.rglob(f"*{ending}")):
        texts_file = path.with_name(path.name.removesuffix(ending) + ".txt")
        texts = tuxpaint_texts(texts_file.read_bytes()) if texts_file.is_file() else {}
        inside = path.relative_to(stamps).as_posix()
        misread = language in _TUXPAINT_MISREAD and inside.startswith(_TUXPAINT_MISREAD[language])
        yield Recording(
            path=path,
            name=_plain(inside.removesuffix(ending).replace("/", "--")),
            text=None if misread else texts.get(language),
            language=language,
            source="tuxpaint",
            licence="GPL-2.0-or-later",
        )


def tuxpaint_texts(content: bytes) -> dict[str, str]:
    """Language -> description: English on the first line, then lines of ``LANG.utf8=...``."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    texts = {"en": lines[0].strip()} if lines else {}
    for line in lines[1:]:
        tag, separator, text = line.partition(".utf8=")
        if separator:
            texts.setdefault(tag.strip(), text.strip())
    return texts


# --- Fish Fillets: acted dialogue; the font of a line is its speaker ---

_FILLETS = "fillets-ng-data"
_FISH = {"font_small": "small", "font_big": "big"}
_LUA_STRING = r'"((?:[^"\\]|\\.)*)"'
_DIALOG = re.compile(rf"dialogId\(\s*{_LUA_STRING}\s*,\s*{_LUA_STRING}|dialogStr\(\s*{_LUA_STRING}\s*\)", re.DOTALL)
_LUA_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_LUA_ESCAPE = re.compile(r"\\(\d{1,3}|.)", re.DOTALL)
_LUA_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _fillets(root: Path, language: str) -> Iterator[Recording]:
    game = root / "usr/share/games/fillets-ng"
    scripts = _folder(game / "script", _FILLETS)
    sounds = _folder(game / "sound", f"{_FILLETS}-{language}")
    for folder in sorted(sounds.glob(f"*/{language}")):
        level = folder.parent.name
        script = scripts / level / f"dialogs_{language}.lua"
        lines = lua_dialogs(script.read_text(encoding="utf-8", errors="replace")) if script.is_file() else {}
        found = {path.stem: path for path in folder.glob("*.ogg")}
        for name in sorted({*lines, *found}):
            font, text = lines.get(name, ("", None))
            fish = _FISH.get(font)
            yield Recording(
                path=found.get(name, folder / f"{name}.ogg"),
                name=_plain(f"{level}--{name}"),
                text=text,
                language=language,
                source="fillets",
                licence="GPL-2.0-only",
                voice=f"fillets-{language}-{fish}" if fish else None,
            )


def lua_dialogs(script: str) -> dict[str, tuple[str, str]]:
    """Dialog id -> (font, text) of a script of ``dialogId(id, font, English)`` and ``dialogStr(text)`` calls."""
    dialogs: dict[str, tuple[str, str]] = {}
    current: tuple[str, str] | None = None
    for match in _DIALOG.finditer(_LUA_COMMENT.sub("", script)):
        name, font, text = match.groups()
        if text is None:
            current = _lua_unescape(name), font
        elif current is not None:
            dialogs.setdefault(current[0], (current[1], _lua_unescape(text)))
            current = None
    return dialogs


def _lua_unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        escaped = match.group(1)
        if escaped.isdigit():
            return chr(int(escaped))
        return _LUA_LETTERS.get(escaped, escaped)

    return _LUA_ESCAPE.sub(character, text)


SOURCES: tuple[Source, ...] = (
    Source("asterisk", ("en", "es", "fr", "it", "ru"), _asterisk_packages, _asterisk),
    Source(
        "tuxpaint",
        ("be", "bg", "ca", "da", "el", "en", "es", "fr", "nl", "ro", "ru"),
        lambda language: (_TUXPAINT,),
        _tuxpaint,
    ),
    Source("fillets", ("cs", "nl"), lambda language: (_FILLETS, f"{_FILLETS}-{language}"), _fillets),
)


LANGUAGES: tuple[str, ...] = tuple(sorted({language for source in SOURCES for language in source.languages}))


def packages_for(languages: tuple[str, ...]) -> tuple[str, ...]:
    """The Debian packages that hold the recordings of `languages`, sorted."""
    return tuple(
        sorted(
            {
                package
                for source in SOURCES
                for language in source.languages
                if language in languages
                for package in source.packages(language)
            }
        )
    )
