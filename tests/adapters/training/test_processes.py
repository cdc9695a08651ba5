"""Processes that train together begin together and end together."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters.errors import DataError
from adapters.training.processes import run_processes

WAITING = """
import ctypes
import os
import signal
import time
from pathlib import Path
from adapters.training.processes import apart, run_processes
def rest(seconds):
    Path(f"begun-{{os.getpid()}}").touch()
    time.sleep(seconds)
def hang(seconds):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(f"begun-{{os.getpid()}}").touch()
    ctypes.PyDLL(None).sleep(seconds)  # with Python's lock, as what hangs in an extension may have it
if __name__ == "__main__":
    {call}
"""


def workers_of(pid: int) -> list[int]:
    """The processes that it spawned to work."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found


def wait(happened, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("call", "count"),
    [
        ("run_processes(rest, (600,), 2)", 2),
        ("run_processes(hang, (600,), 2)", 2),
        ("apart(rest, 600)", 1),
    ],
)
def test_who_kills_the_run_kills_all_of_it(tmp_path, call, count):
    (tmp_path / "waiting.py").write_text(WAITING.format(call=call))
    root = Path(__file__).parents[3]
    run = subprocess.Popen([sys.executable, "waiting.py"], env={"PYTHONPATH": str(root)}, cwd=tmp_path)
    wait(lambda: len(list(tmp_path.glob("begun-*"))) == count)
    workers = workers_of(run.pid)
    assert {path.name for path in tmp_path.glob("begun-*")} == {f"begun-{worker}" for worker in workers}
    run.kill()
    run.wait()
    wait(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 20)


def refuses(reason: str) -> None:
    raise DataError(reason)


def test_what_one_of_them_refuses_is_told():
    with pytest.raises(Exception, match="the manifest is empty"):
        run_processes(refuses, ("the manifest is empty",), 2)
