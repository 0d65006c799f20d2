"""Requests that no browser sends, byte by byte, their answers, and what they cost the site.

It asserts nothing about answers and never imports the application. Linux reports what the processes cost.
"""

import json
import resource
import socket
import time
import zlib
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.clock import PATIENCE
from tests.support.pages import csrf_token
from tests.support.site import Person, Site, new_address

FORM = "Content-Type: application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Reply:
    """An answer; its status is 0 where the server only hung up."""

    status: int
    head: str
    text: str


def send(site: Site, line: str, *headers: str, body: bytes = b"") -> Reply:
    """Send one request, whatever is in it, and return what comes back until the server hangs up.

    Args:
        site: to whom.
        line: the request line; its characters, and those of the headers, are bytes (latin-1).
        headers: after a usual Host, from a network address where nobody came from before.
        body: of the request, whose length is added unless a header states it.
    """
    lines = [line, "Host: 127.0.0.1", f"X-Forwarded-For: {new_address()}", "Connection: close", *headers]
    if body and not any(header.startswith(("Content-Length:", "Transfer-Encoding:")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return send_bytes(site, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def send_bytes(site: Site, request: bytes) -> Reply:
    """Send bytes as they are; the server may hang up in the middle of them."""
    with socket.create_connection(("127.0.0.1", site.server.port), PATIENCE) as line:
        with suppress(OSError):
            line.sendall(request)
            line.shutdown(socket.SHUT_WR)
        head, _, text = b"".join(_received(line)).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return Reply(int(words[1]) if len(words) > 1 else 0, head.decode("latin-1"), text.decode("utf-8", "replace"))


def post(person: Person, path: str, body: bytes, *headers: str) -> Reply:
    """Send a body with the cookies of somebody, in the place of a form."""
    return send(person.site, f"POST {path} HTTP/1.1", cookies_of(person), FORM, *headers, body=body)


def cookies_of(person: Person) -> str:
    """Return the header that a person's browser would send."""
    return "Cookie: " + "; ".join(f"{name}={value}" for name, value in person.cookies().items())


def session_of(person: Person) -> dict[str, Any]:
    """Return what anybody can read in a person's session, without the key that signs it."""
    return readable(person.cookies()["pwreset_session"])


def readable(cookie: str) -> dict[str, Any]:
    """Return what is in a session's cookie."""
    content = cookie.lstrip(".").split(".")[0]
    plain = urlsafe_b64decode(content + "=" * (-len(content) % 4))
    session: dict[str, Any] = json.loads(zlib.decompress(plain) if cookie.startswith(".") else plain)
    return session


def filled_in(person: Person, path: str = "/login/") -> bytes:
    """Open a page, and return the beginning of its form's body: the CSRF token."""
    return b"csrf_token=" + csrf_token(person.get(path)).encode()


def is_quick(act: Callable[[], object], bound: float) -> bool:
    """Whether something takes less than so many seconds, at the best of three tries: others keep the machine busy."""
    return any(_seconds(act) < bound for _ in range(3))


def computed(site: Site) -> float:
    """Return how many seconds the processes of a site have computed, whatever else kept the machine busy."""
    threads = (thread for pid in site.server.processes() for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def resident(site: Site) -> int:
    """Return how many bytes of memory the processes of a site hold."""
    pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in site.server.processes())
    return sum(map(int, pages)) * resource.getpagesize()


def _received(line: socket.socket) -> Iterator[bytes]:
    with suppress(ConnectionResetError):
        while chunk := line.recv(65536):
            yield chunk


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
