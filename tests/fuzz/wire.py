"""A client that sends any bytes at all, and reads whatever comes back.

Decides how an answer is taken apart. It knows nothing of pages, and corrects nothing in what it is told to send.
"""

import socket
from contextlib import suppress
from dataclasses import dataclass

PATIENCE = 30.0  # seconds without a byte; an answer takes milliseconds


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
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
        with suppress(OSError):  # it has heard enough, and answers
            line.sendall(request)
            line.shutdown(socket.SHUT_WR)
        return _read(_all_from(line))


def _all_from(line: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionResetError):  # it hung up before it had read everything
        while part := line.recv(262144):
            parts.append(part)
    return b"".join(parts)


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
