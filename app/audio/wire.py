"""Messages between the service and a process that decodes: fields as JSON, bytes behind them, perhaps an open file.

No pickles: what has got hold of a decoder by a hostile recording gets no further by what it answers.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

_HEAD = struct.Struct("!II")  # bytes of the fields, and behind them
_MOST_BYTES = 16 << 20


class Message(NamedTuple):
    """``file``: a descriptor, which whoever receives it closes."""

    fields: dict[str, Any]
    content: memoryview
    file: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a process says of the recording ``number``, with samples behind it: whether they are the last, and the
    error, by its class and its message, that comes after them; seconds decoded so far, and whether any were lost."""

    number: int
    ended: bool = False
    error: tuple[str, str] | None = None
    duration_s: float = 0.0
    truncated: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Any) -> Answer:
        """As it was received. Raises ``ValueError`` for what is none."""
        kinds = {"number": int, "ended": bool, "error": list | None, "duration_s": float | int, "truncated": bool}
        if not isinstance(fields, dict) or fields.keys() != kinds.keys():
            raise ValueError("an answer of other fields")
        if not all(isinstance(fields[name], kind) for name, kind in kinds.items()):
            raise ValueError("an answer of other kinds")
        error = fields["error"]
        if error is not None and [type(part) for part in error] != [str, str]:
            raise ValueError("an error that is none")
        return cls(**{**fields, "error": None if error is None else (error[0], error[1])})


def send(channel: socket.socket, fields: Mapping[str, Any], content: bytes | memoryview = b"", file: int = -1) -> None:
    """One message; a ``file`` of -1 is none. Raises ``OSError`` where it does not get through, or only a part of it."""
    text = json.dumps(fields).encode()
    head = _HEAD.pack(len(text), len(content))
    if file < 0:
        channel.sendall(head)
    else:
        socket.send_fds(channel, [head], [file])
    channel.sendall(text)
    channel.sendall(content)


def receive(channel: socket.socket, *, files: bool = False) -> Message:
    """The next message, with a file only where ``files`` are taken.

    Raises ``EOFError`` where there is none, or only a part of one, ``BlockingIOError`` where nothing came for as long
    as the channel waits, ``OSError``, and ``ValueError`` for what is no message.
    """
    taken: list[int] = []
    if files:
        head, taken, flags, _ = socket.recv_fds(channel, _HEAD.size, 1)
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "no room for the file that came")
    else:
        head = channel.recv(_HEAD.size)
    if not head:
        raise EOFError
    head += _exactly(channel, _HEAD.size - len(head))
    fields, behind = _HEAD.unpack(head)
    if max(fields, behind) > _MOST_BYTES:
        raise ValueError(f"a message of {fields} and {behind} bytes")
    return Message(json.loads(bytes(_exactly(channel, fields))), _exactly(channel, behind), *taken)


def _exactly(channel: socket.socket, count: int) -> memoryview:
    content = memoryview(bytearray(count))
    got = 0
    while got < count:
        try:
            more = channel.recv_into(content[got:], flags=socket.MSG_WAITALL)  # one wait for Python's lock
        except BlockingIOError:
            more = 0
        if not more:
            raise EOFError
        got += more
    return content
