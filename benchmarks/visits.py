"""People who visit the site: what each kind of visit does, page by page, and how often it comes.

Decides the mix. A visit takes a browser of its own: cookies, an address of its own behind the proxy that is pretended
here, forms posted with the CSRF token of the page. What is not as expected ends the visit and counts as an error.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html import unescape
from itertools import count
from urllib.parse import urlencode, urlsplit

from benchmarks.http import Answer, Site
from benchmarks.post import Post

PASSWORD, NEW_PASSWORD = "seven green lanterns drift", "quiet rivers under old bridges"
KNOWN, MEMBERS, FORGETFUL = 60_000, 2_000, 10_000
# Known addresses are gone through in leaps: by chance somebody would be asked for six times, in one run of five or so,
# and the sixth mail waits for an hour.
LEAP = 7919  # has no divisor in common with KNOWN
STATIC = tuple(f"/static/{name}" for name in ("pico.min.css", "pwreset.css", "pwreset.js", "favicon.svg"))
TOKEN = re.compile(rb'name="csrf_token"[^>]*value="([^"]+)"')
# What is asked for and accepted.
KNOWN_ADDRESS, UNKNOWN_ADDRESS = "reset of a known address", "reset of an unknown address"
REGISTRATION, NOTICE = "registration", "notice of a new password"
PAUSE = (0.2, 1.0)  # seconds between two pages; people take longer, which costs the server nothing


def addresses() -> list[str]:
    """Return every address that has an account when the run begins."""
    groups = {"known": KNOWN, "member": MEMBERS, "forgetful": FORGETFUL}
    return [f"{group}.{number}@example.com" for group, size in groups.items() for number in range(size)]


class UnexpectedAnswer(Exception):
    """A page that is not what the visit asked for.

    Args:
        what: came.
        path: of the page; a link's is no more to be printed here than in a log.
    """

    def __init__(self, what: object, path: str) -> None:
        super().__init__(f"{what} at {re.sub(r'(?<=/password-reset-confirm/).*', '...', path)}")


@dataclass
class Books:
    """What visitors were promised, and how long they waited."""

    accepted: Counter[str] = field(default_factory=Counter)  # by what was asked for
    addresses: set[str] = field(default_factory=set)  # that are owed a mail at least
    visits: Counter[str] = field(default_factory=Counter)
    seconds: list[tuple[str, float, float]] = field(default_factory=list)  # kind of request, when it ended, how long
    errors: list[str] = field(default_factory=list)


class Town:
    """Where visitors come from: each gets a browser, and an address that nobody else uses at the time."""

    def __init__(self, site: Site, post: Post, seed: int) -> None:
        self.site, self.post, self.books = site, post, Books()
        self.chance = random.Random(seed)
        self.newcomers, self.forgetful, self.strangers, self._known = count(), count(), count(), count()
        self._browsers = count()
        self.signed_in: list[dict[str, str]] = []  # cookies of people who never logged out

    def somebody(self) -> str:
        """Return an address that has an account, and not the same again before all had their turn."""
        return f"known.{next(self._known) * LEAP % KNOWN}@example.com"

    def visit(self, due: float) -> Awaitable[None]:
        """Send somebody on a visit that begins at a moment of the loop's clock."""
        journey = self.chance.choices(list(JOURNEYS), list(JOURNEYS.values()))[0]
        return Visitor(self, next(self._browsers), due).go(journey)


class Visitor:
    """Somebody with a browser.

    Args:
        town: where they come from.
        number: tells browsers apart.
        due: when the next request is meant to start; how long one takes is counted from there, so that a request
            which could not even be sent in time shows up (coordinated omission).
    """

    def __init__(self, town: Town, number: int, due: float) -> None:
        self.town, self.site, self.books = town, town.site, town.books
        self.due = due
        self.cookies: dict[str, str] = {}
        self._address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    async def go(self, journey: "Journey") -> None:
        """Go on a visit, and note how it went."""
        try:
            await journey(self)
            self.books.visits[journey.__name__] += 1
        except (UnexpectedAnswer, OSError, TimeoutError) as error:
            self.books.errors.append(f"{journey.__name__}: {type(error).__name__} {error}")

    async def get(self, path: str, kind: str = "page", status: int = 200) -> Answer:
        """Open a page."""
        return await self._send(kind, status, "GET", path)

    async def submit(self, page: Answer, kind: str, status: int = 302, to: str | None = None, **fields: str) -> Answer:
        """Send the form of a page, after a while of reading and typing."""
        token = TOKEN.search(page.body)
        if token is None:
            raise UnexpectedAnswer("no form", page.path)
        await self.pause()
        body = urlencode({**fields, "csrf_token": unescape(token[1].decode())})
        return await self._send(kind, status, "POST", to or page.path, body)

    async def follow(self, answer: Answer) -> Answer:
        """Go where an answer sends the browser."""
        return await self.get(urlsplit(answer.location).path)

    async def pause(self) -> None:
        """Read and type."""
        self.due = asyncio.get_running_loop().time() + self.town.chance.uniform(*PAUSE)

    def accepted(self, what: str, address: str) -> None:
        """Note what the site has just taken on."""
        self.books.accepted[what] += 1
        if what != UNKNOWN_ADDRESS:
            self.books.addresses.add(address)
            self.town.post.expect(address)

    async def _send(self, kind: str, status: int, method: str, path: str, body: str = "") -> Answer:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self.due - loop.time()))
        answer = await self.site.fetch(method, path, body, self.cookies, self._address)
        ended = loop.time()
        self.books.seconds.append((kind, ended, ended - self.due))
        self.due = ended
        if answer.status != status:
            raise UnexpectedAnswer(answer.status, path)
        return answer


Journey = Callable[[Visitor], Awaitable[None]]


async def looks_around(visitor: Visitor) -> None:
    """Open the first page in a new browser, and then another."""
    await visitor.get("/")
    for path in STATIC:
        await visitor.get(path, "static file")
    await visitor.pause()
    await visitor.get("/login/")


async def asks_for_a_known_address(visitor: Visitor) -> None:
    """Ask for a reset of somebody's account, and leave it at that."""
    address = visitor.town.somebody()
    await _ask(visitor, address, KNOWN_ADDRESS)


async def asks_for_an_unknown_address(visitor: Visitor) -> None:
    """Ask for a reset where there is no account."""
    await _ask(visitor, f"nobody.{next(visitor.town.strangers)}@example.net", UNKNOWN_ADDRESS)


async def asks_twice(visitor: Visitor) -> None:
    """Send the form of the page after it too: the second row is put off by a minute."""
    address = visitor.town.somebody()
    page = await _ask(visitor, address, KNOWN_ADDRESS)
    answer = await visitor.submit(page, "reset or register", to="/password-reset/", email=address)
    visitor.accepted(KNOWN_ADDRESS, address)
    await visitor.follow(answer)


async def resets_a_password(visitor: Visitor) -> None:
    """Go the whole way: ask, follow the mailed link, choose a password, and half of them log in with it."""
    address = f"forgetful.{next(visitor.town.forgetful)}@example.com"
    await _ask(visitor, address, KNOWN_ADDRESS)
    await _choose_a_password(visitor, address)
    visitor.accepted(NOTICE, address)
    if visitor.town.chance.random() < 0.5:
        await _log_in(visitor, address, NEW_PASSWORD)


async def registers(visitor: Visitor) -> None:
    """Ask for an account; one in five finishes it."""
    address = f"new.{next(visitor.town.newcomers)}@example.com"
    page = await visitor.get("/register/")
    answer = await visitor.submit(page, "reset or register", email=address)
    visitor.accepted(REGISTRATION, address)
    await visitor.follow(answer)
    if visitor.town.chance.random() < 0.2:
        await _choose_a_password(visitor, address)


async def logs_in(visitor: Visitor) -> None:
    """Log in, look at the account, and half of them log out."""
    address = f"member.{visitor.town.chance.randrange(MEMBERS)}@example.com"
    await _log_in(visitor, address, PASSWORD)
    if visitor.town.chance.random() < 0.5:
        visitor.town.signed_in.append(visitor.cookies)
        return
    await visitor.pause()
    await visitor.submit(await visitor.get("/logout/"), "logout")


async def mistypes_a_password(visitor: Visitor) -> None:
    """Fail to log in."""
    address = f"member.{visitor.town.chance.randrange(MEMBERS)}@example.com"
    await visitor.submit(await visitor.get("/login/"), "login", 200, email=address, password="not what it was")


async def comes_back(visitor: Visitor) -> None:
    """Look at the account in a browser that is still signed in."""
    if not visitor.town.signed_in:
        return await looks_around(visitor)
    visitor.cookies = visitor.town.chance.choice(visitor.town.signed_in)
    await visitor.get("/account/")
    return None


# How often each comes, of a hundred visits. Most are pages and requests for mail; those with a password are few, since
# each costs some 35 ms of a processor by design.
JOURNEYS: dict[Journey, int] = {
    looks_around: 30,
    asks_for_a_known_address: 22,
    asks_for_an_unknown_address: 15,
    asks_twice: 3,
    resets_a_password: 3,
    registers: 8,
    logs_in: 4,
    mistypes_a_password: 2,
    comes_back: 13,
}


async def _ask(visitor: Visitor, address: str, what: str) -> Answer:
    page = await visitor.get("/password-reset/")
    answer = await visitor.submit(page, "reset or register", email=address)
    visitor.accepted(what, address)
    return await visitor.follow(answer)


async def _choose_a_password(visitor: Visitor, address: str) -> None:
    link = await visitor.town.post.link_for(address)
    await visitor.pause()
    form = await visitor.follow(await visitor.get(urlsplit(link).path, "mailed link", 302))
    answer = await visitor.submit(form, "new password", new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    await visitor.follow(answer)


async def _log_in(visitor: Visitor, address: str, password: str) -> None:
    page = await visitor.get("/login/")
    await visitor.follow(await visitor.submit(page, "login", email=address, password=password))
