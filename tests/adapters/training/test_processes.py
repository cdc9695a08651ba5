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
import time
from adapters.training.processes import apart, run_processes
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
    ("call", "count"), [("run_processes(time.sleep, (600,), 2)", 2), ("apart(time.sleep, 600)", 1)]
)
def test_who_kills_the_run_kills_all_of_it(tmp_path, call, count):
    (tmp_path / "waiting.py").write_text(WAITING.format(call=call))
    root = Path(__file__).parents[3]
    run = subprocess.Popen([sys.executable, tmp_path / "waiting.py"], env={"PYTHONPATH": str(root)})
    wait(lambda: len(workers_of(run.pid)) == count)
    workers = workers_of(run.pid)
    time.sleep(5)  # they have begun
    assert workers_of(run.pid) == workers
    run.kill()
    run.wait()
    wait(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def refuses(reason: str) -> None:
    raise DataError(reason)


def test_what_one_of_them_refuses_is_told():
    with pytest.raises(Exception, match="the manifest is empty"):
        run_processes(refuses, ("the manifest is empty",), 2)
