"""Voices of synthesizers that are commands: Festival's, Flite's, Pico's, or any that writes a sound file.

A corpus of recordings has few voices, often one a language, and what learns from it hears nobody else. Synthesizers
that are made of a person's recordings (diphones, units, hidden Markov models) lend further ones. A file in TOML names
them; ``voices.toml`` here has those of the shipped model:

    [[voice]]
    name = "festival-el"           # unique; the clip's voice
    source = "festival"            # the clip's source
    language = "el"
    command = ["text2wave", "-eval", "(voice_JuntaDeAndalucia_es_pa_diphone)", "-o", "{wav}", "{file}"]
    encoding = "iso-8859-15"       # of {file}; UTF-8, if left out
    respell = "greek"              # may be left out

    [respell]
    greek = [["ς", "σ"], ["ου", "u"]]  # from, to; in this order

``{text}`` stands for the sentence, ``{file}`` for a file with it, ``{wav}`` for the file to write. Respelt, a sentence
can be read by a voice of another language, Greek by a Spanish one, say: with an accent, but it is one more voice.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import DataError
from adapters.training.corpus.clip_audio import Samples, UnusableAudio, decode
from adapters.training.corpus.text import ALPHABETS

_MOST_S = 60
_TEXTS = ("name", "source", "language", "encoding", "respell")
_NEEDED = {"name", "source", "language", "command"}
_KNOWN = {*_TEXTS, "command"}


class Unspoken(DataError):
    """A sentence that a voice does not say."""


@dataclass(frozen=True)
class CommandVoice:
    """A voice that a command lends; the module says what its fields are."""

    name: str
    source: str
    language: str
    command: tuple[str, ...]
    encoding: str = "utf-8"
    respell: tuple[tuple[str, str], ...] = ()

    def speak(self, text: str) -> Samples:
        """``text`` as (N,) float32 at 16 kHz. Raises :class:`Unspoken` where the command makes no sound of it, or the
        encoding does not have its letters."""
        for old, new in self.respell:
            text = text.replace(old, new)
        with tempfile.TemporaryDirectory() as folder:
            file, wav = Path(folder, "text"), Path(folder, "said.wav")
            try:
                file.write_bytes(f"{text}\n".encode(self.encoding))
            except UnicodeEncodeError as error:
                raise Unspoken(f"{self.encoding} has no letter {text[error.start]!r}") from error
            places = {"{text}": text, "{file}": str(file), "{wav}": str(wav)}
            arguments = [_filled(argument, places) for argument in self.command]
            try:
                ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MOST_S)
            except (subprocess.TimeoutExpired, OSError) as error:
                raise Unspoken(str(error)) from error
            told = ended.stderr.decode(errors="replace").strip().splitlines()
            last = told[-1] if told else "it says nothing"
            if ended.returncode:
                raise Unspoken(f"{arguments[0]} ended with {ended.returncode}: {last}")
            try:
                return decode(wav)
            except UnusableAudio as error:
                raise Unspoken(f"{arguments[0]} wrote no sound: {last}") from error


def read_voices(path: Path) -> list[CommandVoice]:
    """The voices that a file names. Raises :class:`~adapters.errors.DataError`, with the place, for one that is not as
    it should be, and for a program that is not installed: all that are missing at once."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    told, respellings = content.get("voice"), content.get("respell", {})
    if not content.keys() <= {"voice", "respell"} or not isinstance(told, list) or not told:
        raise DataError(f"{path}: expected [[voice]] tables, a [respell] table if need be, and nothing else")
    for name, pairs in respellings.items() if isinstance(respellings, dict) else [("", None)]:
        if not isinstance(pairs, list) or not all(_texts(pair) and len(pair) == 2 and pair[0] for pair in pairs):
            raise DataError(f"{path}: respell.{name} must be a list of pairs of texts, from and to")
    voices = [_voice(one, respellings, f"{path}: voice {number}") for number, one in enumerate(told, start=1)]
    names = [voice.name for voice in voices]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: more than one voice is called {', '.join(twice)}")
    programs = sorted({voice.command[0] for voice in voices})
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise DataError(f"{path}: not installed: {', '.join(missing)}; install them, or leave their voices out")
    return voices


def _voice(told: Any, respellings: Mapping[str, list[list[str]]], where: str) -> CommandVoice:
    if not isinstance(told, Mapping):
        raise DataError(f"{where}: expected a table")
    if missing := sorted(_NEEDED - told.keys()):
        raise DataError(f"{where}: missing {', '.join(missing)}")
    if unknown := sorted(told.keys() - _KNOWN):
        raise DataError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN))}")
    for field in _TEXTS:
        if field in told and (not isinstance(told[field], str) or not told[field]):
            raise DataError(f"{where}: {field} must be a text that is not empty, got {told[field]!r}")
    for field in ("name", "source"):  # names of folders
        if not told[field].replace("-", "").replace("_", "").isalnum():
            raise DataError(f"{where}: {field} takes letters, digits, - and _, not {told[field]!r}")
    if told["language"] not in ALPHABETS:
        raise DataError(f"{where}: no alphabet for {told['language']!r}; there are {', '.join(ALPHABETS)}")
    command, respell = told["command"], told.get("respell")
    if not _texts(command) or not any("{wav}" in part for part in command):
        raise DataError(f"{where}: command must be a list of texts, of which one has {{wav}} in it")
    if not any("{text}" in part or "{file}" in part for part in command):
        raise DataError(f"{where}: command must have {{text}} or {{file}} in it")
    if respell is not None and respell not in respellings:
        raise DataError(f"{where}: no respelling {respell!r}; there are {', '.join(respellings) or 'none'}")
    encoding = told.get("encoding", "utf-8")
    try:
        "".encode(encoding)
    except LookupError as error:
        raise DataError(f"{where}: no encoding {encoding!r}; iso-8859-2 is one") from error
    pairs = () if respell is None else tuple((old, new) for old, new in respellings[respell])
    return CommandVoice(told["name"], told["source"], told["language"], tuple(command), encoding, pairs)


def _texts(told: Any) -> bool:
    return isinstance(told, list) and bool(told) and all(isinstance(one, str) for one in told)


def _filled(argument: str, places: Mapping[str, str]) -> str:
    for place, value in places.items():
        argument = argument.replace(place, value)
    return argument
