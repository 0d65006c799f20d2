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
    """An address, and what became of it.

    Args:
        email: as it is stored.
        password: what its owner types; None where there is none, or none that anybody knows.
        former: the last one before it that anybody knew.
        has_password: whether one was ever chosen.
        security_stamp: how often everything was ended.
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
        """What ends links by changing."""
        return self.security_stamp, self.passwords, self.logins

    def takes(self, password: str) -> bool:
        """Whether somebody who types this is logged in."""
        return self.exists and self.is_active and self.has_password and self.password == password

    def end_all(self) -> None:
        """End every session, and every link but those that say "This wasn't me"."""
        self.security_stamp += 1

    def change_password(self, password: str | None) -> None:
        """Change it; None to one that nobody knows."""
        self.former, self.password, self.has_password = self.password or self.former, password, True
        self.passwords += 1
        self.end_all()

    def switch(self, *, active: bool) -> None:
        """Switch it on or off."""
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
        """When its time is over."""
        return self.made_at + LIFETIMES[self.purpose]

    @property
    def is_authentic(self) -> bool:
        """Whether it would open its page, were there no time."""
        return self.account.is_active and (self.purpose in WASNT_ME or self.state == self.account.state)

    @property
    def is_alive(self) -> bool:
        """Whether it opens its page."""
        return self.is_authentic and time.time() < self.ends_at


@dataclass(eq=False)
class Session:
    """Somebody who is logged in, in one browser or in several that share its cookie."""

    account: Account
    ended: bool = False
    security_stamp: int = -1

    def __post_init__(self) -> None:
        self.security_stamp = self.account.security_stamp

    @property
    def is_alive(self) -> bool:
        """Whether it still counts."""
        return not self.ended and self.account.is_active and self.security_stamp == self.account.security_stamp


class Failures:
    """Logins that failed, for each account and network."""

    def __init__(self) -> None:
        self._known: dict[tuple[Account, str], tuple[int, float, float]] = {}

    @property
    def moments(self) -> list[float]:
        """When something will be different by itself."""
        return [moment for _, failed_at, until in self._known.values() for moment in (until, failed_at + DAY)]

    def must_wait(self, account: Account, network: str) -> bool:
        """Whether a try now is not looked at; otherwise it counts as one that failed."""
        now = time.time()
        number, failed_at, until = self._known.get((account, network), (0, now, now))
        if until > now:
            return True
        number = 1 if failed_at < now - DAY else number + 1
        wait = min(FIRST_WAIT * 2 ** (number - FREE_FAILURES - 1), LONGEST_WAIT) if number > FREE_FAILURES else 0
        self._known[account, network] = number, now, now + wait
        return False

    def forget(self, account: Account, network: str | None = None) -> None:
        """Take back what failed from one network, or from all."""
        for known in [key for key in self._known if key[0] is account and network in {None, key[1]}]:
            del self._known[known]


@dataclass(frozen=True)
class Asked:
    """An email somebody asked for: a `reset`, a `registration`, or a `notice` that nobody asked for by that name."""

    kind: str
    account: Account
    address: str
    asked_at: float = field(default_factory=time.time)

    @property
    def ends_at(self) -> float:
        """From when on it comes too late to be sent."""
        return self.asked_at + (7 * DAY if self.kind == "notice" else DAY)


@dataclass
class Post:
    """An email that has to come: at least once, and at most as often as it was asked for."""

    account: Account
    purposes: tuple[str, ...]
    at_most: int = 1
    at_least: int = 1


def posts_for(waiting: list[Asked]) -> list[Post]:
    """Return what comes of all that waits, in order, and let accounts come to be by it."""
    posts: dict[tuple[str, Account], Post] = {}
    for asked in waiting:
        account = asked.account
        if asked.ends_at < time.time():
            continue
        if asked.kind == "registration" and not account.exists:
            account.exists, account.email = True, asked.address
        if asked.kind != "notice" and not (account.exists and account.is_active):
            continue
        if (asked.kind, account) in posts:
            post = posts[asked.kind, account]
            post.at_most += 1
            post.at_least += asked.kind == "notice"  # two of these never become one
        else:
            posts[asked.kind, account] = Post(account, _purposes(asked))
    return list(posts.values())


def _purposes(asked: Asked) -> tuple[str, ...]:
    if asked.kind == "reset":
        return "reset", "cancel"
    if asked.kind == "notice":
        return ("notice",) if asked.account.is_active else ()
    return () if asked.account.has_password else ("invite",)
