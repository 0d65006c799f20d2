"""Requests that no browser sends, byte by byte, their answers, and what they cost the site.

It asserts nothing about answers and never imports the application. Linux reports what the processes cost.
"""

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.pages import csrf_token
from tests.support.raw_http import exchange_bytes, readable
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
    """Send bytes as they are; the server may close the connection before it has read them all."""
    head, _, text = exchange_bytes(site.server.port, request).partition(b"\r\n\r\n")
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


def filled_in(person: Person, path: str = "/login/") -> bytes:
    """Open a page, and return the beginning of its form's body: the CSRF token."""
    return b"csrf_token=" + csrf_token(person.get(path)).encode()


def computed(site: Site) -> float:
    """Return how many seconds the processes of a site have computed, whatever else kept the machine busy."""
    threads = (thread for pid in site.server.processes() for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def resident(site: Site) -> int:
    """Return how many bytes of memory the processes of a site hold."""
    pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in site.server.processes())
    return sum(map(int, pages)) * resource.getpagesize()
