"""The least that speaks HTTP to the site: one connection for each request, as nginx makes them (deploy/nginx.conf).

Decides how a request is written and an answer read, in as little time as can be: the visitors share the processors
with the site.
"""

import asyncio
import socket
from dataclasses import dataclass

PATIENCE = 10.0  # seconds
HEAD = (
    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Forwarded-For: {address}\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: text/html\r\nAccept-Language: en\r\n"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    path: str
    status: int
    location: str
    body: bytes


class Site:
    """The site's address.

    Args:
        port: on loopback.
    """

    def __init__(self, port: int) -> None:
        self._there = ("127.0.0.1", port)
        self._host = f"127.0.0.1:{port}"

    async def fetch(self, method: str, path: str, body: str, cookies: dict[str, str], address: str) -> Answer:
        """Send one request and return its answer; the cookies are brought up to date.

        Raises:
            TimeoutError: where none came within PATIENCE.
            OSError: where the connection failed, or the answer is not whole.
        """
        async with asyncio.timeout(PATIENCE):
            raw = await self._exchange(self._written(method, path, body, cookies, address))
        return _read(path, raw, cookies)

    def _written(self, method: str, path: str, body: str, cookies: dict[str, str], address: str) -> bytes:
        head = HEAD.format(method=method, path=path, host=self._host, address=address)
        if cookies:
            head += f"Cookie: {'; '.join(f'{name}={value}' for name, value in cookies.items())}\r\n"
        if body:
            head += f"Origin: http://{self._host}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            head += f"Content-Length: {len(body)}\r\n"
        return f"{head}\r\n{body}".encode("ascii")

    async def _exchange(self, request: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket() as line:
            line.setblocking(False)  # noqa: FBT003 (the socket's own way)
            await loop.sock_connect(line, self._there)
            await loop.sock_sendall(line, request)
            parts = []
            while part := await loop.sock_recv(line, 262144):
                parts.append(part)
        return b"".join(parts)


def _read(path: str, raw: bytes, cookies: dict[str, str]) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    location, length = "", -1
    for line in lines:
        name, _, value = line.partition(": ")
        match name.lower():
            case "content-length":
                length = int(value)
            case "location":
                location = value
            case "set-cookie":
                _keep(cookies, value)
    if length != len(body):
        msg = f"{len(body)} bytes of {length} in an answer"
        raise ConnectionError(msg)
    return Answer(path, int(first.split(" ")[1]), location, body)


def _keep(cookies: dict[str, str], value: str) -> None:
    name, _, content = value.partition(";")[0].partition("=")
    if content:
        cookies[name] = content
    else:
        cookies.pop(name, None)
