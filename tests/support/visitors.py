"""Visitors who request a reset while something is broken, and the answers they get.

It decides how a request is made and measured: only the POST of the form, in a browser that has just opened the page.
"""

import itertools
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.servers import Browser, Page, Server

FORM = "/password-reset/"
ACCOUNTS = [f"person-{number:03}@example.com" for number in range(300)]
COOKIE_VALUE = re.compile(r"=[^;]*")


@dataclass(frozen=True)
class Answer:
    """The answer to one visitor.

    Args:
        address: the one that the visitor typed.
        known: whether it has an account.
        shape: status, headers and body, without what differs for everybody (the date, the cookie's value).
        seconds: from the first byte sent to the last one read.
    """

    address: str
    known: bool
    status: int
    shape: str
    seconds: float


class People:
    """The visitors of one server. Several threads may use it at once.

    Args:
        server: the one that they visit.
        known: addresses that have an account, used one after the other.
    """

    def __init__(self, server: Server, known: list[str]) -> None:
        self.server = server
        self.answers: list[Answer] = []
        self._known = iter(known)
        self._numbers = itertools.count()

    def request_resets(self, pairs: int = 1, *, again: int = 0) -> list[str]:
        """Request a reset for an address with an account and for one without, alternately.

        Args:
            pairs: how many of both, each address a new one.
            again: how often the request is repeated for each address.

        Returns:
            The addresses with an account.
        """
        asked = [next(self._known) for _ in range(pairs)]
        for address in asked:
            stranger = f"stranger-{next(self._numbers):03}@example.com"
            for _ in range(1 + again):
                self.request_reset(address, known=True)
                self.request_reset(stranger, known=False)
        return asked

    def request_reset(self, address: str, *, known: bool) -> Answer:
        """Open the form in a new browser, send it, and note the answer."""
        browser = TimedBrowser(self.server)
        page = browser.submit(FORM, email=address)
        answer = Answer(address, known, page.status, shape_of(page), browser.seconds)
        self.answers.append(answer)
        return answer

    @contextmanager
    def requesting_resets(self, pause: float = 0.3) -> Iterator[None]:
        """Request resets in pairs, again and again, while the block runs."""
        enough = threading.Event()

        def go_on() -> None:
            while not enough.wait(pause):
                self.request_resets()

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(go_on)
            try:
                yield
            finally:
                enough.set()
            job.result()


class TimedBrowser(Browser):
    """A browser that remembers how long the last request took."""

    seconds = 0.0

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Page:
        """Send one request."""
        before = time.perf_counter()
        page = super().send(method, path, headers, body)
        self.seconds = time.perf_counter() - before
        return page


def shape_of(page: Page) -> str:
    """Return what must not differ between an address with an account and one without."""
    lines = [f"{name.lower()}: {_constant(name.lower(), value)}" for name, value in page.headers.items()]
    return "\n".join([str(page.status), *sorted(lines), "", page.text])


def _constant(name: str, value: str) -> str:
    if name == "set-cookie":
        return COOKIE_VALUE.sub("=", value, count=1)
    return "" if name == "date" else value
