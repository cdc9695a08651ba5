"""An S3 server of moto's on loopback. What needs it is skipped where moto or s3fs is not installed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest


class S3:
    """A running server; :attr:`environment` is what its clients need."""

    def __init__(self) -> None:
        pytest.importorskip("s3fs")
        self._make = pytest.importorskip("moto.server").ThreadedMotoServer
        self.start(0)

    def start(self, port: int) -> None:
        self._server: Any = self._make(ip_address="127.0.0.1", port=port)
        self._server.start()
        self.port: int = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def bucket(self) -> str:
        """The address of a prefix in a new bucket; the environment must be set."""
        name = f"bucket-{uuid.uuid4().hex}"
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
        return f"s3://{name}/some/prefix"


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server for the ``with`` block, which the environment points to."""
    server = S3()
    try:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in server.environment.items():
                patched.setenv(name, value)
            yield server
    finally:
        server.stop()
