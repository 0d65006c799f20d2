"""A state machine of three accounts and three browsers: each step is done to the application and to the model.

It decides what can happen, and what must be true after each step: who is logged in where, which links open their pages,
what the database contains of each account, and which emails were sent.
"""

import re
import time
from collections import Counter
from typing import Any

from flask import Flask
from flask_mail import Message, email_dispatched
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pwreset.outbox.delivery import deliver_pending
from tests.support.account_model import WASNT_ME, Account, EmailRequest, Failures, Link, Session, expected_emails
from tests.support.app import Visitor
from tests.support.databases import Database
from tests.support.pages import csrf_token, path_of

GOOD = ("seven green lanterns drift", "quiet rivers under old bridges", "nine brass kettles on a shelf")
BAD = "short"
START = "2031-03-01T18:00:00Z"
MOMENTS = (67, 701, 3671, 90_007, 345_611, 700_001)  # seconds; sums of them come near no hour or day
PAGES = {
    "password-reset-confirm": {"reset", "invite"},
    "password-reset-cancel": {"cancel"},
    "account-secure": {"notice"},
}
SESSION = "pwreset_session"
COMPLETE, LOGIN, RESET_DONE = "/password-reset-complete/", "/login/", "/password-reset/done/"

indices = st.integers(0, 2)
passwords = st.sampled_from(GOOD)
rarely = st.integers(0, 9).map(lambda number: number == 9)


class Device(Visitor):
    """A browser at a network address of its own, and who the model says is logged in there."""

    def __init__(self, app: Flask, network: str) -> None:
        super().__init__(app)
        self.network = network
        self.client.environ_base["REMOTE_ADDR"] = network
        self.session: Session | None = None
        self.opened: Link | None = None

    @property
    def account(self) -> Account | None:
        """Whose pages it sees."""
        return self.session.account if self.session and self.session.is_alive else None

    def sees(self, session: Session | None) -> None:
        """Note that it has begun anew: who was logged in here is not any more, not in a copy of the cookie either."""
        if self.session:
            self.session.ended = True
        self.session, self.opened = session, None

    def copy(self, other: "Device") -> None:
        """Take over another browser's cookie."""
        cookie = other.client.get_cookie(SESSION)
        self.client.delete_cookie(SESSION)
        if cookie:
            self.client.set_cookie(SESSION, cookie.value)
        self.session, self.opened = other.session, other.opened


class Story(RuleBasedStateMachine):
    """The rules.

    Args:
        app: in local mode, with the model's waits and lifetimes, and no other limits.
        database: its own.
        clock: how time passes.
    """

    def __init__(self, app: Flask, database: Database, clock: Any) -> None:
        super().__init__()
        self.app, self.database, self.clock = app, database, clock
        self._forget_the_story_before()
        clock.move_to(START)
        self.accounts = [Account(f"{name}@example.com") for name in ("ann", "ben", "cat")]
        self.devices = [Device(app, f"10.0.0.{number}") for number in (1, 2, 3)]
        self.links: list[Link] = []
        self.waiting: list[EmailRequest] = []
        self.failures = Failures()
        self.rows: dict[str, tuple[Any, ...]] = {}

    @initialize()
    def two_accounts_have_passwords(self) -> None:
        """Let Ann and Ben be customers already, and Ann logged in; Cat has never been here."""
        for account, password in zip(self.accounts[:2], GOOD, strict=False):
            made = self._flask("create", account.email, "--password-stdin", typed=password)
            assert made.exit_code == 0
            account.exists, account.has_password, account.password = True, True, password
        self._tries_to_log_in(self.devices[0], self.accounts[0], self.accounts[0].email, GOOD[0])
        self.database_agrees()

    # --- at a browser

    @rule(device=indices, account=indices, loud=st.booleans())
    def registers(self, device: int, account: int, loud: bool) -> None:
        self._requests(self.devices[device], "/register/", EmailRequest("registration", *self._typed(account, loud)))

    @rule(device=indices, account=indices, loud=st.booleans())
    def requests_a_reset(self, device: int, account: int, loud: bool) -> None:
        self._requests(self.devices[device], "/password-reset/", EmailRequest("reset", *self._typed(account, loud)))

    @rule(device=indices, account=indices, loud=st.booleans(), password=passwords, forged=rarely)
    def logs_in(self, device: int, account: int, loud: bool, password: str, forged: bool) -> None:
        browser, (who, address) = self.devices[device], self._typed(account, loud)
        if forged:
            self._post(browser, LOGIN, forged, email=address, password=password)
        else:
            self._tries_to_log_in(browser, who, address, password)

    @rule(device=indices, account=indices, times=st.integers(1, 4))
    def guesses(self, device: int, account: int, times: int) -> None:
        for loud in [False, True, False, True][:times]:
            self._tries_to_log_in(self.devices[device], *self._typed(account, loud), BAD)

    @precondition(lambda self: self._somebody_came_in())
    @rule(device=indices, forged=rarely)
    def logs_out(self, device: int, forged: bool) -> None:
        browser = self.devices[device]
        answer = self._post(browser, "/logout/", forged)
        if not forged:
            assert (answer.status_code, answer.location) == (302, "/")
            browser.sees(None)

    @precondition(lambda self: self._somebody_came_in())
    @rule(device=indices, forged=rarely)
    def signs_out_everywhere(self, device: int, forged: bool) -> None:
        browser, account = self.devices[device], self.devices[device].account
        answer = self._post(browser, "/account/sign-out-everywhere/", forged)
        if not forged:
            assert answer.status_code == 302
        if account and not forged:
            account.end_all()
            browser.sees(None)

    @precondition(lambda self: self._somebody_came_in())
    @rule(device=indices, old=passwords, new=passwords, good=st.booleans(), forged=rarely)
    def changes_the_password(self, device: int, old: str, new: str, good: bool, forged: bool) -> None:
        browser, account = self.devices[device], self.devices[device].account
        fields = {"old_password": old, "new_password1": new if good else BAD, "new_password2": new if good else BAD}
        answer = self._post(browser, "/password-change/", forged, **fields)
        if forged:
            return
        if account is None:
            assert answer.status_code == 302
            assert answer.location.startswith("/login/?next=")
        elif self.failures.must_wait(account, browser.network):
            assert answer.status_code == 429
        elif account.takes(old) and good:
            assert (answer.status_code, answer.location) == (302, "/password-change/done/")
            self._has_a_new_password(account, new)
            browser.sees(Session(account))
            self.waiting.append(EmailRequest("notice", account, account.email))
        else:
            assert answer.status_code == 200
            if account.takes(old):
                self.failures.forget(account, browser.network)

    @precondition(lambda self: self._somebody_came_in())
    @rule(thief=indices, device=indices)
    def copies_a_cookie(self, thief: int, device: int) -> None:
        self.devices[thief].copy(self.devices[device])

    # --- with a link

    @precondition(lambda self: self.links)
    @rule(device=indices, number=st.integers(0, 7))
    def opens_a_link(self, device: int, number: int) -> None:
        browser, link = self.devices[device], self._link(number)
        answer = browser.get(link.path)
        self._opens(link, answer)
        if answer.status_code == 302:
            browser.opened = link

    @precondition(lambda self: self.links)
    @rule(device=indices, number=st.integers(0, 7), page=st.sampled_from(sorted(PAGES)))
    def tries_a_link_at_another_page(self, device: int, number: int, page: str) -> None:
        browser, link = self.devices[device], self._link(number)
        if link.purpose in PAGES[page]:
            return
        for send in (browser.get, lambda path: self._post(browser, path, forged=False)):
            answer = send(f"/{page}/{link.path.partition('/')[2].partition('/')[2]}")
            assert answer.status_code == 200
            assert "This link is no longer valid." in answer.text

    @precondition(lambda self: self.links)
    @rule(device=indices, number=st.integers(0, 7), password=passwords, good=st.booleans(), forged=rarely)
    def chooses_a_password(self, device: int, number: int, password: str, good: bool, forged: bool) -> None:
        """At the page where a link leads, with whatever link was opened in this browser last."""
        browser, link = self.devices[device], self._link(number)
        if link.purpose in WASNT_ME:
            return
        page = f"{link.path.rpartition('/')[0]}/set-password"
        fields = dict.fromkeys(("new_password1", "new_password2"), password if good else BAD)
        answer = self._post(browser, page, forged, **fields)
        opened = browser.opened
        may = opened is not None and opened.is_alive and opened.account is link.account and good
        if forged:
            return
        assert (answer.status_code, answer.location) == ((302, COMPLETE) if may else (200, None))
        if may and opened:
            self._has_a_new_password(link.account, password)
            browser.sees(None)
            if opened.purpose == "reset":
                self.waiting.append(EmailRequest("notice", link.account, link.account.email))

    @precondition(lambda self: self.links)
    @rule(device=indices, number=st.integers(0, 7), forged=rarely)
    def says_this_wasnt_me(self, device: int, number: int, forged: bool) -> None:
        """Press the button of any link's page; that of a form to set a password is somewhere else."""
        browser, link = self.devices[device], self._link(number)
        account, may = link.account, link.is_alive
        answer = self._post(browser, link.path, forged)
        if forged:
            return
        if link.purpose not in WASNT_ME:
            self._opens(link, answer)
            browser.opened = link if may else browser.opened
            return
        target = LOGIN if link.purpose == "cancel" else RESET_DONE
        assert (answer.status_code, answer.location) == ((302, target) if may else (200, None))
        if may and link.purpose == "cancel":
            account.end_all()
        elif may:
            self._has_a_new_password(account, None)
            self.waiting.append(EmailRequest("reset", account, account.email))

    # --- at the console

    @rule(account=indices, active=st.booleans())
    def is_switched(self, account: int, active: bool) -> None:
        done = self._flask("activate" if active else "deactivate", self.accounts[account].email)
        assert (done.exit_code == 0) == self.accounts[account].exists
        if self.accounts[account].exists:
            self.accounts[account].switch(active=active)

    @rule(account=indices, password=passwords)
    def gets_a_password_from_the_operator(self, account: int, password: str) -> None:
        who = self.accounts[account]
        done = self._flask("set-password", who.email, "--password-stdin", typed=password)
        assert (done.exit_code == 0) == (who.exists and who.is_active)
        if done.exit_code == 0:
            self._has_a_new_password(who, password)
            self.waiting.append(EmailRequest("notice", who, who.email))

    @rule(account=indices)
    def gets_a_link_from_the_operator(self, account: int) -> None:
        who = self.accounts[account]
        done = self._flask("reset-link", who.email)
        assert (done.exit_code == 0) == (who.exists and who.is_active)
        if done.exit_code == 0:
            self.links.append(Link("reset" if who.has_password else "invite", who, path_of(done.stdout.split()[0])))

    # --- what happens by itself

    @precondition(lambda self: self.waiting)
    @rule()
    def email_is_delivered(self) -> None:
        expected = expected_emails(self.waiting)
        self.waiting, came = [], self._deliver()
        assert came.keys() == {(email.account, email.purposes) for email in expected}
        for email in expected:
            assert email.at_least <= came[email.account, email.purposes] <= email.at_most

    @rule(seconds=st.sampled_from(MOMENTS))
    def time_passes(self, seconds: int) -> None:
        self._let_pass(seconds)

    # --- what is true after each step

    @invariant()
    def browsers_agree(self) -> None:
        for browser in self.devices:
            page = browser.get("/account/")
            assert page.status_code == (200 if browser.account else 302)
            if browser.account:
                assert browser.account.email in page.text

    @invariant()
    def links_agree(self) -> None:
        for link in self.links[-6:]:
            self._opens(link, Visitor(self.app).get(link.path))

    @invariant()
    def database_agrees(self) -> None:
        rows = {
            email: rest
            for email, *rest in self.database.query("SELECT email, password_hash, stamp, is_active FROM users")
        }
        existing = [account for account in self.accounts if account.exists]
        assert rows.keys() == {account.email for account in existing}
        for account in existing:
            password_hash, stamp, is_active = rows[account.email]
            assert bool(is_active) == account.is_active
            assert password_hash.startswith("!") != account.has_password
            now = {"password": (account.passwords, password_hash), "stamp": (account.security_stamp, stamp)}
            for what, (number, kept) in now.items():
                before = self.rows.setdefault(f"{account.email} {what}", (number, kept))
                assert (number == before[0]) == (kept == before[1]), what
                self.rows[f"{account.email} {what}"] = number, kept

    def teardown(self) -> None:
        """Log in to each account from somewhere else: with its password, and the one before."""
        for number, account in enumerate(self.accounts):
            for last, password in enumerate(filter(None, (account.password, account.former))):
                browser = Device(self.app, f"10.1.{number}.{last}")
                assert (browser.log_in(account.email, password).status_code == 302) == account.takes(password)

    # --- how

    def _typed(self, number: int, loud: bool) -> tuple[Account, str]:
        account = self.accounts[number]
        return account, account.email.capitalize() if loud else account.email

    def _link(self, number: int) -> Link:
        return self.links[-1 - number % len(self.links)]

    def _requests(self, browser: Device, path: str, request: EmailRequest) -> None:
        signed_in = browser.account is not None
        answer = self._post(browser, path, forged=False, email=request.address)
        if signed_in and request.kind == "registration":
            assert (answer.status_code, answer.location) == (302, "/account/")
        else:
            assert (answer.status_code, answer.location) == (302, f"{path}done/")
            self.waiting.append(request)

    def _tries_to_log_in(self, browser: Device, account: Account, address: str, password: str) -> None:
        answer = self._post(browser, LOGIN, forged=False, email=address, password=password)
        if self.failures.must_wait(account, browser.network):
            assert answer.status_code == 429
        elif account.takes(password):
            assert (answer.status_code, answer.location) == (302, "/account/")
            account.logins += 1
            self.failures.forget(account, browser.network)
            browser.sees(Session(account))
        else:
            assert answer.status_code == 200

    def _somebody_came_in(self) -> bool:
        return any(browser.session for browser in self.devices)

    def _post(self, browser: Device, path: str, /, forged: bool, **fields: str) -> Any:
        """Send a form with this browser's token, or with one that somebody else was given."""
        source = Visitor(self.app) if forged else browser
        token = csrf_token(source.get("/password-reset/"))
        answer = browser.client.post(path, data={**fields, "csrf_token": token})
        assert not forged or answer.status_code == 400
        return answer

    def _opens(self, link: Link, answer: Any) -> None:
        if not link.is_alive:
            assert answer.status_code == 200
            assert "<form" not in answer.text
            message = "This link has expired." if link.is_authentic else "This link is no longer valid."
            assert message in answer.text
        elif link.purpose in WASNT_ME:
            assert answer.status_code == 200
            assert "<form" in answer.text
        else:
            assert (answer.status_code, answer.location) == (302, f"{link.path.rpartition('/')[0]}/set-password")

    def _has_a_new_password(self, account: Account, password: str | None) -> None:
        account.change_password(password)
        self.failures.forget(account)

    def _flask(self, *arguments: str, typed: str = "") -> Any:
        return self.app.test_cli_runner().invoke(args=["users", *arguments], input=typed)

    def _deliver(self) -> Counter[tuple[Account, tuple[str, ...]]]:
        """Deliver until nothing waits, and return how often each account was emailed links of which purposes."""
        came: Counter[tuple[Account, tuple[str, ...]]] = Counter()

        def keep(_app: Flask, message: Message, **_: Any) -> None:
            links = self._links_in(message)
            self.links += links
            came[self._owner(message), tuple(link.purpose for link in links)] += 1

        with email_dispatched.connected_to(keep), self.app.app_context():
            while self.database.query("SELECT count(*) FROM outbox") != [(0,)]:
                deliver_pending()
                self._let_pass(2)
        return came

    def _links_in(self, message: Message) -> list[Link]:
        paths = re.findall(r"^http://[^/]+(/[a-z-]+/\w+/\S+)$", message.body or "", re.MULTILINE)
        purposes = [PAGES[path.split("/")[1]] for path in paths]
        unlike = "invite" if len(paths) > 1 else "reset"  # only an email with a link to reset by has a second one
        return [
            Link(*(those - {unlike}), self._owner(message), path) for those, path in zip(purposes, paths, strict=True)
        ]

    def _owner(self, message: Message) -> Account:
        (address,) = message.recipients
        (account,) = [account for account in self.accounts if account.email == address]
        return account

    def _let_pass(self, seconds: float) -> None:
        """Let time pass, and a little more where something is about to end: the test itself takes its time."""
        self.clock.shift(seconds)
        while any(-1 < moment - time.time() < 30 for moment in self._moments()):
            self.clock.shift(31)

    def _moments(self) -> list[float]:
        ends = (thing.ends_at for things in (self.links, self.waiting) for thing in things)
        return [*ends, *self.failures.moments]

    def _forget_the_story_before(self) -> None:
        tables = ("outbox", "security_events", "login_failures", "ended_sessions", "counters", "users")
        for table in tables:
            self.database.query(f"DELETE FROM {table}")  # noqa: S608 (ours)
