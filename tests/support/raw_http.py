"""An HTTP client that sends any bytes and corrects nothing, and what can be read from its answers.

It knows no page and no site.
"""

import json
import socket
import time
import zlib
from base64 import urlsafe_b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.support.clock import PATIENCE


def exchange_bytes(port: int, request: bytes) -> bytes:
    """Send bytes to a port on loopback and return all that comes back until the server closes the connection.

    Raises:
        TimeoutError: where the server neither answers nor closes the connection.
    """
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        with suppress(OSError):  # the server has read enough, and answers
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        parts = []
        with suppress(ConnectionResetError):  # it closed the connection before it had read everything
            while part := connection.recv(262144):
                parts.append(part)
        return b"".join(parts)


def readable(cookie: str) -> dict[str, Any]:
    """Return what is in a session's cookie."""
    content = cookie.lstrip(".").split(".")[0]
    plain = urlsafe_b64decode(content + "=" * (-len(content) % 4))
    session: dict[str, Any] = json.loads(zlib.decompress(plain) if cookie.startswith(".") else plain)
    return session


def is_quick(act: Callable[[], object], bound: float) -> bool:
    """Whether something takes less than so many seconds, at the best of three tries: others keep the machine busy."""
    return any(_seconds(act) < bound for _ in range(3))


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


class NoAnswer(Exception):
    """The server hung up without a word."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        status: the number.
        headers: names in lower case, in order.
        body: the rest, as text.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def __getitem__(self, name: str) -> str:
        """Return all values of a header, joined by commas; empty where there is none."""
        return ", ".join(self.all(name))

    def all(self, name: str) -> list[str]:
        """Return each value of a header."""
        return [value for known, value in self.headers if known == name]

    @property
    def is_of_the_application(self) -> bool:
        """Whether a view or an error page answered; gunicorn's own refusals of what is no HTTP name no server."""
        return bool(self["server"])


def exchange(port: int, request: bytes) -> Answer:
    """Send bytes to a port on loopback and return the answer.

    Raises:
        NoAnswer: where nothing came back.
        TimeoutError: where the server is silent and does not hang up either.
    """
    return _read(exchange_bytes(port, request))


def _read(raw: bytes) -> Answer:
    while raw.startswith(b"HTTP/1.1 100 "):
        raw = raw.partition(b"\r\n\r\n")[2]
    if not raw:
        raise NoAnswer
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    return Answer(int(first.split(" ")[1]), headers, body.decode("utf-8", "replace"))
