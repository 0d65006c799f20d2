"""Times one POST after the other, as an attacker does who wants to know which addresses have an account.

The time runs from the first byte sent to the end of the answer, when the site closes the connection, so that what it
does right after the answer counts too. The connection, the form with its CSRF token and session, and the bytes of the
request are prepared before.
"""

import gc
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import urlencode

from benchmarks.processes import HOST

PATIENCE = 10.0  # seconds
HEAD = (
    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Forwarded-For: {network}\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: text/html\r\nAccept-Language: en\r\n"
)
TOKEN = re.compile(rb'name="csrf_token"[^>]*value="([^"]+)"')
COOKIE = re.compile(rb"\r\nSet-Cookie: ([^;]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """A form of the site.

    Args:
        path: of its page.
        status: of the answer to it, whatever the address.
        fields: beside the address.
    """

    path: str
    status: int
    fields: dict[str, str] = field(default_factory=dict)


class Stopwatch:
    """A browser that opened a form once and sends it again and again.

    Args:
        port: of the site, on loopback.
        form: to send.
    """

    def __init__(self, port: int, form: Form) -> None:
        self._server = (HOST, port)
        self._form = form
        self._page = self._head("GET", "10.1.0.1") + b"\r\n"
        page, _ = self._exchange(self._page)
        token = TOKEN.search(page)
        cookie = COOKIE.search(page)
        assert token, page
        assert cookie, page
        self._token = unescape(token[1].decode())
        self._cookie = cookie[1]

    def post(self, address: str, network: str) -> float:
        """Send the form with an address, as if from a network, and return the milliseconds until the answer's end."""
        body = urlencode({**self._form.fields, "email": address, "csrf_token": self._token}).encode()
        head = self._head("POST", network) + b"Cookie: " + self._cookie
        head += b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer, nanoseconds = self._exchange(head + body)
        assert answer.startswith(b"HTTP/1.1 %d " % self._form.status), answer
        return nanoseconds / 1e6

    def get(self) -> float:
        """Open the form's page again, and return the milliseconds it took."""
        return self._exchange(self._page)[1] / 1e6

    def _head(self, method: str, network: str) -> bytes:
        host = f"{self._server[0]}:{self._server[1]}"
        return HEAD.format(method=method, path=self._form.path, host=host, network=network).encode()

    def _exchange(self, request: bytes) -> tuple[bytes, int]:
        with socket.create_connection(self._server, PATIENCE) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = time.perf_counter_ns()
            connection.sendall(request)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            nanoseconds = time.perf_counter_ns() - start
        return b"".join(parts), nanoseconds


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep this program from collecting garbage during a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
