"""Messages between the service and a process that decodes: fields as JSON, bytes behind them, perhaps an open file.

No pickles: what has got hold of a decoder by a hostile recording gets no further by what it answers.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

_HEAD = struct.Struct("!II")  # bytes of the fields, and behind them
_MOST_BYTES = 16 << 20


class Message(NamedTuple):
    """``file``: a descriptor, which whoever receives it closes."""

    fields: dict[str, Any]
    content: memoryview
    file: int | None = None


def send(channel: socket.socket, fields: Mapping[str, Any], content: bytes | memoryview = b"", file: int = -1) -> None:
    """One message; a ``file`` of -1 is none. Raises ``OSError`` where nobody is left at the other end."""
    text = json.dumps(fields).encode()
    head = _HEAD.pack(len(text), len(content))
    if file < 0:
        channel.sendall(head)
    else:
        socket.send_fds(channel, [head], [file])
    channel.sendall(text)
    channel.sendall(content)


def receive(channel: socket.socket) -> Message:
    """The next message. Raises ``EOFError`` where there is none, or only a part of one, ``OSError``, and ``ValueError``
    for what is no message."""
    head, files, _, _ = socket.recv_fds(channel, _HEAD.size, 1)
    head += _exactly(channel, _HEAD.size - len(head)) if head else b""
    if not head:
        raise EOFError
    fields, behind = _HEAD.unpack(head)
    if max(fields, behind) > _MOST_BYTES:
        raise ValueError(f"a message of {fields} and {behind} bytes")
    return Message(json.loads(bytes(_exactly(channel, fields))), _exactly(channel, behind), *files)


def _exactly(channel: socket.socket, count: int) -> memoryview:
    content = memoryview(bytearray(count))
    got = 0
    while got < count:
        more = channel.recv_into(content[got:])
        if not more:
            raise EOFError
        got += more
    return content
