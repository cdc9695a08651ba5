"""Text -> speech by eSpeak NG, with the times of its phones, or only how it would be said.

For a language without recordings, and for more sentences than were recorded. A formant synthesizer sounds like no
person: whatever rests on it is called synthetic wherever it is told of. The library and its data come in the wheel
``espeakng-loader``; it keeps global state, so a process has one voice at a time.
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from adapters.errors import DataError
from adapters.training.corpus.clip_audio import SAMPLE_RATE, Samples
from adapters.training.manifest import Clip

VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
_NAMES = {"en": "en-us"}  # others go by their tag

# speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 0x0001, 0x8000
_UTF8, _CHARACTERS = 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_LIST_TERMINATED, _PHONEME = 0, 7
_IPA, _SEPARATED = 0x02, ord("_") << 8


@dataclass(frozen=True)
class Voice:
    """``variant``: one of :data:`VARIANTS`. ``rate``: words a minute. ``pitch`` and ``range``: 0 to 99."""

    variant: str = "m1"
    rate: int = 160
    pitch: int = 50
    range: int = 50


@dataclass(frozen=True)
class Phone:
    """A phone in eSpeak's notation and when it begins."""

    name: str
    start_s: float


@dataclass(frozen=True)
class Spoken:
    """``samples``: (N,) float32 at 16 kHz."""

    samples: Samples
    phones: tuple[Phone, ...]


def sounds_of(clips: Iterable[Clip]) -> list[str]:
    """How the text of each clip is said (:meth:`Synthesizer.sounds`). Raises :class:`~adapters.errors.DataError` for a
    language that eSpeak NG does not speak."""
    synthesizer = Synthesizer()
    return [synthesizer.sounds(clip.text, clip.language) for clip in clips]


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Synthesizer:
    """eSpeak NG in this process."""

    def __init__(self) -> None:
        """Raises :class:`~adapters.errors.DataError` where it is not installed or does not start."""
        try:
            import espeakng_loader
        except ImportError as error:
            raise DataError("synthetic speech needs eSpeak NG: pip install espeakng-loader") from error
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _DONT_EXIT)
        if self._rate <= 0:
            raise DataError(f"eSpeak NG does not start with its data in {data.decode()}")
        self._blocks: list[np.ndarray] = []
        self._phones: list[Phone] = []
        self._callback = _Callback(self._take)  # kept: C holds no reference
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p

    def speak(self, text: str, language: str, voice: Voice) -> Spoken:
        """``text`` in ``language``. Raises :class:`~adapters.errors.DataError` for a language or variant that it does
        not have."""
        self._choose(language, f"+{voice.variant}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks, self._phones = [], []
        content = text.encode() + b"\0"
        if self._library.espeak_Synth(content, len(content), 0, _CHARACTERS, 0, _UTF8, None, None):
            raise DataError(f"eSpeak NG does not speak {text!r}")
        self._library.espeak_Synchronize()
        wave = np.concatenate(self._blocks).astype(np.float32) / 32768.0 if self._blocks else np.zeros(0, np.float32)
        return Spoken(soxr.resample(wave, self._rate, SAMPLE_RATE), tuple(self._phones))

    def sounds(self, text: str, language: str) -> str:
        """How ``text`` is said in ``language``, in letters of the International Phonetic Alphabet alone: without
        stress, length, what is written above or beside a letter, and pauses. Raises as :meth:`speak`."""
        self._choose(language)
        content = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(content))
        clauses: list[str] = []
        while rest.value:
            said = self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA | _SEPARATED)
            clauses.append(said.decode(errors="replace"))
        phones = "_".join(clauses).replace(" ", "_").split("_")
        spoken = "".join(phone for phone in phones if not phone.startswith("("))  # "(en)": a word of another language
        return "".join(letter for letter in spoken if unicodedata.category(letter) in ("Ll", "Lo"))

    def _choose(self, language: str, variant: str = "") -> None:
        name = f"{_NAMES.get(language, language)}{variant}"
        if self._library.espeak_SetVoiceByName(name.encode()):
            raise DataError(f"eSpeak NG has no voice {name!r}")

    def _take(self, wave: Any, count: int, events: Any) -> int:
        if wave and count:
            self._blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _LIST_TERMINATED:
            if events[index].type == _PHONEME:
                name = bytes(events[index].id.string).partition(b"\0")[0].decode(errors="replace")
                self._phones.append(Phone(name, events[index].audio_position / 1000))
            index += 1
        return 0
