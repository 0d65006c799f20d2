"""What may follow from a request, and whether it did.

After each request it checks the answer, the log, every account and every session; at the end the emails, the complete
log and the server's memory. It looks at the site from outside: over HTTP, by SQL, and in the log.
"""

import re
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email.utils import getaddresses
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from tests.support.clock import until
from tests.support.fuzz_accounts import Cast
from tests.support.odd_requests import OddRequest, fields_that_arrive, written
from tests.support.odd_values import BREAK, MARK
from tests.support.raw_http import Answer, exchange
from tests.support.smtp import Record

THREADS = 8  # of the server, gunicorn.conf.py
HEADERS = {
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
POLICY = ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'")
DONE = {"/password-reset/done/": "reset", "/register/done/": "registration"}
TOKEN = re.compile(r"/([A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{43})\s")
WORDS_THAT_MAY_BE_TOKENS = re.compile(r"[A-Za-z0-9_-]{43,}")
WAITING = "SELECT count(*) FROM outbox WHERE failed_at IS NULL"


class Row(NamedTuple):
    """An account as the database has it."""

    password_hash: str
    security_stamp: str
    is_active: bool
    last_login: Any


class RequestChecks:
    """The checks of the requests to one site.

    Args:
        cast: the people, each with what they hold.
    """

    def __init__(self, cast: Cast) -> None:
        self.cast, self.site = cast, cast.site
        self.accounts = self._accounts()
        self.requested: dict[str, Counter[str]] = {kind: Counter() for kind in ("reset", "registration", "notice")}
        self.seen: Counter[tuple[str, int]] = Counter()
        self.sent = 0
        self.done: set[str] = set()
        self._addresses = count()
        self._log_read = 0
        self._printed_since()
        self._mails_before = len(self.site.mail_server.messages)

    def send(self, request: OddRequest) -> None:
        """Send a request, and check what follows from it."""
        self.sent += 1
        answer = exchange(self.site.server.port, written(request, self.cast.known, self._address(request)))
        self._log_is_clean(self._printed_since())  # at once, or it would be taken for the next one's
        self._note(request, answer)
        self._answer_is_sound(request, answer)
        self._nobody_else_is_signed_in(request, answer)
        self._accounts_are_as_they_may_be(request, answer)

    def warm_up(self) -> None:
        """Let every thread of the server hash a password once: each keeps the room that this takes."""
        fields = (("email", "nobody@fuzz.example"), ("password", "x"), ("csrf_token", "«visitor.csrf»"))
        login = OddRequest("visitor", "POST", "/login/", fields)
        requests = [written(login, self.cast.known, self._address(login)) for _ in range(4 * THREADS)]
        with ThreadPoolExecutor(2 * THREADS) as visitors:
            answers = list(visitors.map(partial(exchange, self.site.server.port), requests))
        assert {answer.status for answer in answers} == {200}

    # --- after each request

    def _note(self, request: OddRequest, answer: Answer) -> None:
        self.seen[request.method, answer.status] += 1
        kind = DONE.get(answer["location"]) if answer.status == 302 else None
        if kind and request.mentions("dan.notice"):
            self.requested[kind][mailbox(self.cast.known["dan"])] += 1
        elif kind:
            self.requested[kind][mailbox(fields_that_arrive(request, self.cast.known)["email"])] += 1

    def _answer_is_sound(self, request: OddRequest, answer: Answer) -> None:
        assert answer.status < 500 or _is_unknown_coding(request, answer), f"an answer of {answer.status}"
        assert MARK not in answer.body, "what a client sent is in the page as it was sent"
        names = {name for name, _ in answer.headers}
        assert not names & {BREAK.strip().partition(":")[0].lower()}, "a client wrote a header"
        assert re.match(rf"(/(?![/\\])|{re.escape(self.site.url)}/|$)", answer["location"]), "a redirect to elsewhere"
        if answer["location"].rstrip("/").endswith("/set-password"):
            assert request.mentions("bob.token") or request.mentions("carol.token"), "another link opens the form"
        if answer.is_of_the_application:
            _carries_the_headers(answer)

    def _log_is_clean(self, printed: str) -> None:
        assert "Traceback (most recent call last)" not in printed, printed[-3000:]
        readable = printed + unquote(printed)
        leaked = [secret for secret in self.cast.secrets if secret in readable]
        assert leaked == [], printed

    def _nobody_else_is_signed_in(self, request: OddRequest, answer: Answer) -> None:
        """A person who is signed in afterwards was so before, or has just sent a password."""
        cookies = [text.partition(";")[0] for text in answer.all("set-cookie")]
        if not cookies:
            return
        head = f"GET /account/ HTTP/1.1\r\nHost: {self.cast.known['host']}\r\nCookie: {'; '.join(cookies)}\r\n"
        page = exchange(self.site.server.port, f"{head}Connection: close\r\n\r\n".encode())
        if page.status == 200:
            (name,) = [name for address, name in self.cast.names().items() if address in page.body]
            was_so = request.who == name == "alice"
            assert was_so or request.mentions(f"{name}.password"), f"{name} is signed in"

    def _accounts_are_as_they_may_be(self, request: OddRequest, answer: Answer) -> None:
        before, self.accounts = self.accounts, self._accounts()
        names = self.cast.names()
        for address, row in self.accounts.items():
            if address not in before:
                known = mailbox(address) in self.requested["registration"]
                assert known, "an account that nobody registered"
                assert row.password_hash.startswith("!"), "a new account with a password"
            elif row != before[address]:
                self._may_change(names.get(address, "a stranger"), before[address], row, request)
                self._make_anew(names[address], row, before[address], request)
        assert before.keys() <= self.accounts.keys(), "an account is gone"
        if request.who == "alice" and (answer.status, request.method) == (302, "POST"):
            self._see_whether_alice_has_left()

    def _may_change(self, name: str, before: Row, after: Row, request: OddRequest) -> None:
        assert request.method == "POST", f"{name}'s account is changed by {request.method}"
        assert after.is_active == before.is_active, f"{name} is switched on or off"
        if after.password_hash != before.password_hash:
            assert request.mentions(f"{request.who}.csrf"), f"{name}'s password is changed by a forged form"
            assert _proves_a_right_to_the_password(name, request), f"{name}'s password is changed"
        elif after.security_stamp != before.security_stamp:
            assert _proves_a_right_to_the_sessions(name, request), f"{name}'s sessions are ended"
        else:
            assert request.mentions(f"{name}.password"), f"{name} is logged in"
        what = [
            field
            for field in ("password_hash", "security_stamp", "last_login")
            if getattr(before, field) != getattr(after, field)
        ]
        self.done.add(f"{name}: {what[0]}")

    def _make_anew(self, name: str, row: Row, before: Row, request: OddRequest) -> None:
        if row.password_hash != before.password_hash and name != "dan":
            self.requested["notice"][mailbox(self.cast.known[name])] += 1
            self.cast.set_password(name, fields_that_arrive(request, self.cast.known)["new_password1"])
        if name == "bob":
            self.cast.open_a_link_of_bob()
        if name == "alice" and row.security_stamp != before.security_stamp:
            self.cast.sign_in_alice()
        self.accounts = self._accounts()

    def _see_whether_alice_has_left(self) -> None:
        if not self.cast.browsers["alice"].is_signed_in():
            self.cast.sign_in_alice()
            self.accounts = self._accounts()

    # --- at the end

    def emails_were_requested(self) -> None:
        """Assert that each email went to one stored address, and at most as often as it was requested."""
        until(self._all_emails_are_sent, "an outbox where nothing waits")
        records = self.site.mail_server.messages[self._mails_before :]
        stored = {as_sent(address) for address in self._accounts()} - {self.cast.known["dora"], self.cast.known["erin"]}
        requested = sum(self.requested.values(), Counter()) + Counter(
            {mailbox(self.cast.known["bob"]): self.cast.asked_for_bob}
        )
        came: Counter[str] = Counter()
        for record in records:
            (address,) = record.rcpt_tos
            assert address in stored
            assert _addressees(record) == [address]
            came[mailbox(address)] += 1
        assert came <= requested

    def no_secret_was_logged(self) -> None:
        """No token of any email that was sent is in the log, complete or only its signature."""
        texts = [record.message.as_string() for record in self.site.mail_server.messages]
        signatures = {token.partition(".")[2] for text in texts for token in TOKEN.findall(text.replace("=\n", ""))}
        assert len(signatures) > 5, "no tokens to look for"
        printed = self.site.server.log()
        for word in WORDS_THAT_MAY_BE_TOKENS.findall(printed + unquote(printed)):
            assert not {word[at : at + 43] for at in range(len(word) - 42)} & signatures

    def memory(self) -> int:
        """Return what the server's processes hold, in bytes."""
        sizes = [Path(f"/proc/{pid}/statm").read_text(encoding="ascii") for pid in self.site.server.processes()]
        return sum(int(size.split()[1]) for size in sizes) * 4096

    def _all_emails_are_sent(self) -> bool:
        self.cast.make_waiting_emails_due()
        return bool(self.site.query(WAITING) == [(0,)])

    def _accounts(self) -> dict[str, Row]:
        found = self.site.query("SELECT email, password_hash, stamp, is_active, last_login FROM users")
        return {email: Row(*rest) for email, *rest in found}

    def _printed_since(self) -> str:
        with self.site.server.output.open("rb") as log:
            log.seek(self._log_read)
            printed = log.read()
        self._log_read += len(printed)
        return printed.decode("utf-8", "replace")

    def _address(self, request: OddRequest) -> str:
        number = 0 if request.crowded else next(self._addresses)
        return f"172.{16 + (number >> 16 & 15)}.{number >> 8 & 255}.{number & 255}"


def mailbox(address: str) -> str:
    """Return what two spellings of one address have in common."""
    return as_sent(unicodedata.normalize("NFKC", address.strip()).casefold())


def as_sent(address: str) -> str:
    """Return an address as SMTP carries it: the local part as it is, the domain in ASCII."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.encode('idna').decode().lower()}"


def _is_unknown_coding(request: OddRequest, answer: Answer) -> bool:
    # RFC 9112 section 6.1 asks for a 501; gunicorn gives it before the application is asked.
    coded = any(name == "Transfer-Encoding" for name, _ in request.headers)
    return answer.status == 501 and coded and not answer.is_of_the_application


def _carries_the_headers(answer: Answer) -> None:
    assert {name: answer[name] for name in HEADERS} == HEADERS
    missing = [words for words in POLICY if words not in answer["content-security-policy"]]
    assert missing == []
    if answer.body and answer.status == 200 and "text/html" in answer["content-type"]:
        assert answer["cache-control"] == "no-store"
    for cookie in answer.all("set-cookie"):
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie


def _proves_a_right_to_the_password(name: str, request: OddRequest) -> bool:
    """Whether a request has what it takes: the old password in a session, the opened link, or the link of a notice."""
    proofs = {
        "alice": request.who == "alice" and request.mentions("alice.password"),
        "bob": request.who == "bob",
        "dan": request.mentions("dan.notice"),
    }
    return proofs.get(name, False)


def _proves_a_right_to_the_sessions(name: str, request: OddRequest) -> bool:
    proofs = {"alice": request.who == "alice", "dan": request.mentions("dan.cancel")}
    return proofs.get(name, False)


def _addressees(record: Record) -> list[str]:
    headers = [str(text) for name in ("To", "Cc", "Bcc") for text in record.message.get_all(name, [])]
    return [address for _, address in getaddresses(headers)]
