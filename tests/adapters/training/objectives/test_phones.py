"""The phone of every frame, at the speed that the clip is heard at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapters.frontend import Geometry
from adapters.training.manifest import Clip
from adapters.training.objectives.phones import Phones

GEOMETRY = Geometry((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
SECOND = 16_000


def clip(*phones: tuple[str, float]) -> Clip:
    return Clip(Path("x.flac"), 1.0, "ab", "es", "espeak", "GPL-2.0-or-later", "train", synthetic=True, phones=phones)


def test_each_frame_has_the_phone_that_is_spoken_at_its_middle():
    phones = Phones([clip(("a", 0.02), ("b", 0.5)), clip(("b", 0.0))], [SECOND, SECOND], GEOMETRY, 8)
    found = phones.target(0, np.zeros(SECOND, np.float32))
    assert found.shape == (49,)
    assert found.tolist() == [0] * 25 + [1] * 24, "frame 25 has its middle at 0.5125 s"
    assert set(phones.target(1, np.zeros(SECOND, np.float32))) == {1}
    assert phones.head.out_features == 2


def test_faster_speech_has_its_phones_earlier():
    phones = Phones([clip(("a", 0.0), ("b", 0.5))], [SECOND], GEOMETRY, 8)
    found = phones.target(0, np.zeros(SECOND // 2, np.float32))
    assert found.shape == (24,)
    assert np.flatnonzero(found)[0] == 12


def test_clips_without_phones_are_not_learnt_from():
    phones = Phones([clip(), clip(("a", 0.0)), clip()], [SECOND] * 3, GEOMETRY, 8)
    assert phones.clips == [1]
