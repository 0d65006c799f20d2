"""A running site: a public one with gunicorn and a mail server, or a local one with `flask run`, and its visitors.

It decides how a site is configured (PUBLIC_URL on loopback and one trusted proxy, so that each person has a network
address of their own) and how accounts are created: by the forms and the emailed links. It asserts nothing else about
pages, and never imports the application.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from itertools import count
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Any
from urllib.parse import urlencode

from tests.support.clock import until
from tests.support.databases import Database
from tests.support.instance import Instance
from tests.support.pages import csrf_token, links_in, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.raw_http import exchange_bytes
from tests.support.servers import Browser, FlaskRun, Gunicorn, Page, Server
from tests.support.smtp import Record, SMTPServer

MakeSite = Callable[..., "Site"]

# Seconds: where a machine stands still for longer than a lock is waited for, an email comes after its lease.
A_LEASE_AND_MORE = 75.0
ORIGINAL = "original@example.com"
COPY = """
    INSERT INTO users (email, email_key, stamp, password_hash, is_active, created_at)
    SELECT ?, ?, ?, password_hash, is_active, created_at FROM users WHERE email = ?
"""
_numbers = count(1)


@dataclass(frozen=True)
class Account:
    """An account and the password its owner chose."""

    email: str
    password: str = PASSWORD


class Person(Browser):
    """Somebody with a browser and a network address of their own.

    Args:
        site: what they visit.
        address: of theirs, as the proxy in front says it; a new one unless given.
        headers: sent with each of their requests.
    """

    def __init__(self, site: "Site", address: str | None = None, **headers: str) -> None:
        super().__init__(site.server)
        self.site, self.address, self.headers = site, address or new_address(), headers

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Page:
        """Send one request and return the answer, whatever its status."""
        given = {"X-Forwarded-For": self.address, **self.headers, **headers}
        return super().send(method, path, given, body)

    def log_in(self, account: Account, password: str | None = None, **fields: str) -> Page:
        return self.submit("/login/", email=account.email, password=password or account.password, **fields)

    def is_signed_in(self) -> bool:
        return self.send("GET", "/account/", {}).status == 200

    def request_reset(self, email: str, **headers: str) -> Page:
        """Send the form of the reset; the headers go with the POST."""
        return self.post_form("/password-reset/", headers, email=email)

    def post_form(self, path: str, headers: dict[str, str], **fields: str) -> Page:
        """Open a page and send its form with more headers; stay at the answer."""
        fields["csrf_token"] = csrf_token(self.get(path))
        return self.post(path, fields, headers)

    def post(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> Page:
        """Send fields as they are."""
        return self.send("POST", path, headers or {}, urlencode(fields).encode())

    def choose(self, link: str, password: str = NEW_PASSWORD) -> Page:
        """Follow an emailed link and send its form; stay at the answer."""
        return self.submit(path_of(link), new_password1=password, new_password2=password)

    def post_raw(self, path: str, *head: str, **fields: str) -> int:
        """Send a page's form under a request line and headers of one's own, whatever they hold; return the status."""
        body = urlencode({**fields, "csrf_token": csrf_token(self.get(path))})
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies().items())
        usual = f"Cookie: {cookies}", f"X-Forwarded-For: {self.address}", f"Content-Length: {len(body)}"
        lines = *head, *usual, "Content-Type: application/x-www-form-urlencoded", "Connection: close", "", body
        return int(self.site.raw("\r\n".join(lines).encode("latin-1")).split(b" ", 2)[1])

    def cookies(self) -> dict[str, str]:
        """Return what this browser keeps."""
        return {cookie.name: cookie.value or "" for cookie in self._jar()}

    def take_cookies_of(self, other: "Person") -> None:
        """Copy another browser's cookies, as a thief does."""
        for cookie in other._jar():
            self._jar().set_cookie(cookie)

    def _jar(self) -> Any:
        return next(handler.cookiejar for handler in self._opener.handlers if hasattr(handler, "cookiejar"))


class Site(Instance):
    """An installation with one server process and, unless it is a local one, the mail server that it uses.

    Args:
        folder: the instance folder.
        database: migrated.
        mail_server: started; None for a local site, which keeps its emails in the mailbox.
        kind: of the server.
        settings: beside the usual ones; None leaves one out.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        mail_server: SMTPServer | None = None,
        kind: type[Server] = Gunicorn,
        **settings: object,
    ) -> None:
        usual = {"EMAIL_PORT": mail_server.port, "TRUSTED_PROXIES": 1, "WEB_CONCURRENCY": 1} if mail_server else {}
        super().__init__(folder, database, **{**usual, **settings})
        self._mail_server = mail_server
        self.server = kind(folder, **self.settings)  # type: ignore[arg-type]
        self.settings = {**self.server.own_settings(), **self.settings}
        self.url = self.server.url
        self._has_original = False

    @property
    def mail_server(self) -> SMTPServer:
        """The mail server of a public site."""
        assert self._mail_server is not None, "a local site has no mail server"
        return self._mail_server

    def log(self) -> str:
        """Return what the server has printed."""
        return self.server.log()

    def person(self, address: str | None = None, **headers: str) -> Person:
        """Return a person without cookies."""
        return Person(self, address, **headers)

    @cached_property
    def victim(self) -> Account:
        """An account that many tests attack, each in vain."""
        return self.account("victim")

    def account(self, name: str = "alice", domain: str = "example.com", password: str = PASSWORD) -> Account:
        """Register an account as its owner does, under an address that no other test has."""
        return self.register(f"{name}.{token_hex(4)}@{domain}", password)

    def register(self, email: str, password: str = PASSWORD) -> Account:
        """Register an address by the form and the emailed link."""
        owner = self.person()
        owner.submit("/register/", email=email)
        page = owner.choose(self.link_for(email), password)
        assert page.status == 302, f"{page.status} instead of an account; {self._state()}"
        return Account(email, password)

    def reset_link(self, account: Account) -> str:
        """Ask for a reset and return the emailed link."""
        self.let_an_hour_pass()
        before = len(self.emails_to(account.email))
        self.person().request_reset(account.email)
        return self.link_for(account.email, before + 1)

    def link_for(self, email: str, number: int = 1) -> str:
        """Wait for an address's email of this number, from 1, and return the first link in it."""
        return links_in(self.wait_for_email(email, number))[0]

    def wait_for_email(self, email: str, number: int = 1) -> EmailMessage:
        """Wait until so many emails have come to an address, and return the last of them."""
        come = f"{number} mails to an address"
        until(lambda: len(self.emails_to(email)) >= number, lambda: f"{come}; {self._state()}", A_LEASE_AND_MORE)
        return self.emails_to(email)[number - 1]

    def _state(self) -> str:
        rows = self.query("SELECT id, kind, leased, attempts, failure, created_at, run_after FROM outbox")
        return f"outbox: {rows}; log: {self.server.log()[-2000:]}"

    def emails_to(self, email: str) -> list[EmailMessage]:
        """Return what came to exactly this envelope address, oldest first."""
        return [record.message for record in list(self.mail_server.messages) if record.rcpt_tos == [email]]

    def emails_caused_by(self, act: Callable[[], object]) -> list[Record]:
        """Do something, wait until everything is sent or failed, and return the emails that were sent meanwhile."""
        before = len(self.mail_server.messages)
        act()
        waiting = "SELECT count(*) FROM outbox WHERE failed_at IS NULL"
        until(lambda: self.query(waiting)[0][0] == 0, "an outbox with nothing to send")
        return self.mail_server.messages[before:]

    def let_an_hour_pass(self) -> None:
        """End the cooldown of every account, and forget how many emails each requested within the hour."""
        self.let_a_minute_pass()
        self.query("DELETE FROM security_events WHERE kind IN ('requested', 'registered')")

    def add_account(self, email: str) -> None:
        """Add an account with PASSWORD; no email is sent, so the next one need not wait.

        The command creates the first account, which no test uses. It takes a second, so the others are copies.
        """
        if not self._has_original:
            created = self.flask("users", "create", ORIGINAL, "--password-stdin", stdin=PASSWORD + "\n")
            assert created.returncode == 0, created.stdout + created.stderr
            self._has_original = True
        self.query(COPY, email, email, token_urlsafe(24), ORIGINAL)

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, and return all that comes back until the server hangs up."""
        return exchange_bytes(self.server.port, request)


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Run a site; nothing of its processes is left after it."""
    try:
        site.server.start()
        yield site
    finally:
        site.server.stop_for_certain()


@contextmanager
def running_locally(folder: Path, database: Database, **settings: object) -> Iterator[Site]:
    """Migrate and serve a site in local mode with `flask run`; it ends with the block.

    Args:
        folder: the instance folder, empty.
        database: without tables.
        settings: of the application.
    """
    # All tests come from one network address, so together they would exceed its limits.
    site = Site(folder, database, kind=FlaskRun, **{"RATELIMIT_ENABLED": "false", **settings})
    migrated = site.flask("db", "upgrade")
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    with serving(site):
        yield site


def new_address() -> str:
    """Return a network address from which nobody came before, in 10.0.0.0/8."""
    number = next(_numbers)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
