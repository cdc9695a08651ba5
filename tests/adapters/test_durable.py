"""What the system says of a file names it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from adapters.durable import naming


def test_an_error_without_a_file_gets_one() -> None:
    with (
        pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: 'some/where'") as caught,
        naming(Path("some/where")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone", "other"), OSError("of no number")])
def test_other_errors_stay_as_they_are(error: OSError) -> None:
    with pytest.raises(OSError, match=r"gone|of no number") as caught, naming(Path("some/where")):
        raise error
    assert caught.value is error
