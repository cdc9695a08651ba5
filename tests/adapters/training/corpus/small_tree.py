"""Packages in small: the folders and files of the Debian packages, with sounds made here."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16_000


def speech_like(seconds: float, seed: int, *, silence_s: float = 0.5) -> np.ndarray:
    """A buzz through syllables, with silence (but for faint noise) at both ends. (samples,)"""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = random.uniform(90, 250)
    voice = sum(np.sin(2 * np.pi * pitch * k * time + random.uniform(0, 6)) / k for k in range(1, 12))
    syllables = 0.25 + 0.75 * np.abs(np.sin(2 * np.pi * random.uniform(1.5, 3) * time))
    speech = 0.12 * voice * syllables
    silence = np.zeros(round(silence_s * RATE))
    whole = np.concatenate([silence, speech, silence])
    return (whole + 1e-4 * random.standard_normal(len(whole))).astype(np.float32)


def write_g722(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=RATE)
        stream.codec_context.layout = "mono"
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def write_ogg(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, format="OGG", subtype="VORBIS")


class Tree:
    """An unpacked tree to put recordings in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._asterisk: dict[str, list[str]] = {}

    def asterisk(self, language: str, texts: dict[str, str], seconds: Callable[[str], float] | None = None) -> None:
        """Prompts of `texts` (name -> text); a text that ends in ``!!`` gets no sound."""
        sounds = self.root / f"usr/share/asterisk/sounds/{language}_XX_f_Someone"
        for name, text in texts.items():
            if not text.endswith("!!"):
                length = seconds(text) if seconds else max(0.6, len(text) / 12)
                write_g722(sounds / f"{name}.g722", speech_like(length, zlib.crc32(f"{language}{name}".encode())))
        sounds.mkdir(parents=True, exist_ok=True)
        listing = "; Core Sounds\n\n" + "".join(f"{name}: {text}\n" for name, text in texts.items())
        folder = self.root / f"usr/share/doc/asterisk-core-sounds-{language}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress(listing.encode()))

    def tuxpaint(self, name: str, english: str, texts: dict[str, str], rate: int = 44_100) -> None:
        stamps = self.root / "usr/share/tuxpaint/stamps"
        stamps.mkdir(parents=True, exist_ok=True)
        lines = english + "\n" + "".join(f"{language}.utf8={text}\n" for language, text in texts.items())
        (stamps / name).parent.mkdir(parents=True, exist_ok=True)
        (stamps / f"{name}.txt").write_text(lines, encoding="utf-8")
        for language, text in {"en": english, **texts}.items():
            ending = "_desc.ogg" if language == "en" else f"_desc_{language}.ogg"
            samples = speech_like(max(0.6, len(text) / 12), zlib.crc32(f"{name}{language}".encode()))
            stereo = np.stack([samples, samples], axis=1)
            write_ogg(stamps / f"{name}{ending}", np.repeat(stereo, 2, axis=0) if rate == 32_000 else stereo, rate)

    def fillets(self, level: str, language: str, lua: str, sounds: dict[str, float]) -> None:
        game = self.root / "usr/share/games/fillets-ng"
        script = game / "script" / level / f"dialogs_{language}.lua"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(lua, encoding="utf-8")
        (game / "sound" / level / language).mkdir(parents=True, exist_ok=True)
        for name, seconds in sounds.items():
            write_ogg(
                game / "sound" / level / language / f"{name}.ogg", speech_like(seconds, zlib.crc32(name.encode()))
            )
