"""A model of accounts, which the application is compared with.

It decides who may log in with what, which links and sessions are valid, who has to wait, and which emails are sent. It
knows nothing of the application: no cookie, no hash, no table.
"""

import time
from dataclasses import dataclass, field

HOUR, DAY = 3600, 86400
LIFETIMES = {"reset": HOUR, "invite": 3 * DAY, "cancel": HOUR, "notice": 7 * DAY}
WASNT_ME = {"cancel", "notice"}  # these outlive a login and a new password
FREE_FAILURES, FIRST_WAIT, LONGEST_WAIT = 1, 120, 900


@dataclass(eq=False)
class Account:
    """An address and its account.

    Args:
        email: as it is stored.
        password: what its owner types; None if there is no password, or nobody knows it.
        former: the last known password before it.
        has_password: whether a password was ever chosen.
        security_stamp: how often all sessions and links were revoked.
        passwords: how often the password was changed.
        logins: how often somebody logged in.
    """

    email: str
    password: str | None = None
    former: str | None = None
    has_password: bool = False
    exists: bool = False
    is_active: bool = True
    security_stamp: int = 0
    passwords: int = 0
    logins: int = 0

    @property
    def state(self) -> tuple[int, int, int]:
        """The state whose change ends links."""
        return self.security_stamp, self.passwords, self.logins

    def takes(self, password: str) -> bool:
        """Whether this password logs its owner in."""
        return self.exists and self.is_active and self.has_password and self.password == password

    def end_all(self) -> None:
        """End every session, and every link except the "This wasn't me" links."""
        self.security_stamp += 1

    def change_password(self, password: str | None) -> None:
        """Change the password; None stands for one that nobody knows."""
        self.former, self.password, self.has_password = self.password or self.former, password, True
        self.passwords += 1
        self.end_all()

    def switch(self, *, active: bool) -> None:
        """Activate or deactivate the account."""
        self.is_active = active
        self.end_all()


@dataclass(eq=False)
class Link:
    """A link as it was emailed, or printed for an operator."""

    purpose: str
    account: Account
    path: str
    made_at: float = field(default_factory=time.time)
    state: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        self.state = self.account.state

    @property
    def ends_at(self) -> float:
        """When it expires."""
        return self.made_at + LIFETIMES[self.purpose]

    @property
    def is_authentic(self) -> bool:
        """Whether it would open its page if it could not expire."""
        return self.account.is_active and (self.purpose in WASNT_ME or self.state == self.account.state)

    @property
    def is_alive(self) -> bool:
        """Whether it opens its page."""
        return self.is_authentic and time.time() < self.ends_at


@dataclass(eq=False)
class Session:
    """A login, in one browser or in several that share its cookie."""

    account: Account
    ended: bool = False
    security_stamp: int = -1

    def __post_init__(self) -> None:
        self.security_stamp = self.account.security_stamp

    @property
    def is_alive(self) -> bool:
        """Whether it is still valid."""
        return not self.ended and self.account.is_active and self.security_stamp == self.account.security_stamp


class Failures:
    """Logins that failed, for each account and network."""

    def __init__(self) -> None:
        self._known: dict[tuple[Account, str], tuple[int, float, float]] = {}

    @property
    def moments(self) -> list[float]:
        """The times at which a wait or a failure ends."""
        return [moment for _, failed_at, until in self._known.values() for moment in (until, failed_at + DAY)]

    def must_wait(self, account: Account, network: str) -> bool:
        """Whether an attempt is rejected now; if not, it is counted as a failure."""
        now = time.time()
        number, failed_at, until = self._known.get((account, network), (0, now, now))
        if until > now:
            return True
        number = 1 if failed_at < now - DAY else number + 1
        wait = min(FIRST_WAIT * 2 ** (number - FREE_FAILURES - 1), LONGEST_WAIT) if number > FREE_FAILURES else 0
        self._known[account, network] = number, now, now + wait
        return False

    def forget(self, account: Account, network: str | None = None) -> None:
        """Delete the failures from one network, or from all."""
        for known in [key for key in self._known if key[0] is account and network in {None, key[1]}]:
            del self._known[known]


@dataclass(frozen=True)
class EmailRequest:
    """A request for an email: a `reset`, a `registration`, or a `notice`, which another action causes."""

    kind: str
    account: Account
    address: str
    requested_at: float = field(default_factory=time.time)

    @property
    def ends_at(self) -> float:
        """When the request expires."""
        return self.requested_at + (7 * DAY if self.kind == "notice" else DAY)


@dataclass
class ExpectedEmail:
    """An email that must be sent: at least once, and at most as often as it was requested."""

    account: Account
    purposes: tuple[str, ...]
    at_most: int = 1
    at_least: int = 1


def expected_emails(waiting: list[EmailRequest]) -> list[ExpectedEmail]:
    """Return the emails for all requests, in order, and create the accounts of registrations."""
    expected: dict[tuple[str, Account], ExpectedEmail] = {}
    for request in waiting:
        account = request.account
        if request.ends_at < time.time():
            continue
        if request.kind == "registration" and not account.exists:
            account.exists, account.email = True, request.address
        if request.kind != "notice" and not (account.exists and account.is_active):
            continue
        if (request.kind, account) in expected:
            email = expected[request.kind, account]
            email.at_most += 1
            email.at_least += request.kind == "notice"  # notices are never merged
        else:
            expected[request.kind, account] = ExpectedEmail(account, _purposes(request))
    return list(expected.values())


def _purposes(request: EmailRequest) -> tuple[str, ...]:
    if request.kind == "reset":
        return "reset", "cancel"
    if request.kind == "notice":
        return ("notice",) if request.account.is_active else ()
    return () if request.account.has_password else ("invite",)
