"""The service in a process that is killed, not told to stop, and the process that writes to its folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from adapters.backbone import fingerprint, load_backbone
from benchmarks.server import ROOT
from tests.e2e.world import KEY, Version


class Service:
    """``tongues serve`` with the model in ``folder``, from the moment on in which its process is there."""

    def __init__(self, folder: Path, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "TONGUES_ADMIN_KEY": KEY, "TONGUES_WATCH_S": "0.1", "TONGUES_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--models", str(folder)]
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)

    def kill(self) -> None:
        """At once, without a word."""
        self._process.kill()
        assert self._process.wait(60) == -signal.SIGKILL, "it had ended by itself"


class Writer:
    """Another process, which publishes into the folder."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def publish(self, name: str, folder: Path) -> str:
        """The files in ``folder`` as ``name``: the version."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {folder}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """A writer into the model in ``folder``, until the block ends."""
    encoder = load_backbone(folder / "backbone")
    sizes = [*map(str, astuple(encoder.size)), fingerprint(folder / "backbone")]
    command = [sys.executable, "-m", "tests.e2e.folder_publisher", str(folder / "adapters"), *sizes]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Writer(process)


def unpack(version: Version, folder: Path) -> Path:
    """The files of a version in a folder of their own."""
    folder.mkdir(parents=True)
    for name, content in version.files.items():
        (folder / name).write_bytes(content)
    return folder
