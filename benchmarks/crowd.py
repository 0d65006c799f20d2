"""Whom a stranger may ask about: addresses of every sort, so many that none is asked about twice.

Decides what makes an address of its sort. All are of one length and made by chance, with and without an account, so
that nothing but the account can make a difference.
"""

from collections.abc import Iterable
from enum import StrEnum
from itertools import cycle
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import func, select, update

from benchmarks.stores import add_users
from benchmarks.visits import PASSWORD
from pwreset.accounts import login_throttle
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import User
from pwreset.passwords import make_password

# Where requests come from, in turn: at 300 a second each network comes 18 times a minute, which no limit minds.
NETWORKS = cycle([f"10.0.{number >> 8}.{number & 255}" for number in range(1000)])
WAITS = {"LOGIN_FREE_FAILURES": "1", "LOGIN_FIRST_WAIT": "900"}  # settings with which `let_wait` has least to do


class Sort(StrEnum):
    """What may be behind an address."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    DEACTIVATED = "deactivated"
    UNFINISHED = "never finished"
    THROTTLED = "mailed just now"


class Question(NamedTuple):
    """Somebody asks about an address, from a network."""

    address: str
    network: str


def questions(sort: Sort, number: int) -> list[Question]:
    """Make addresses of a sort, with their accounts, for one question each."""
    made = [Question(f"{token_hex(8)}@example.com", next(NETWORKS)) for _ in range(number)]
    if sort is not Sort.UNKNOWN:
        _add_accounts(sort, (question.address for question in made))
    return made


def let_wait(asked: Iterable[Question]) -> None:
    """Let logins fail until each network has to wait a quarter of an hour; the application has WAITS for settings."""
    for address, network in asked:
        for _ in range(2):
            login_throttle.count_attempt(address, network)


def _add_accounts(sort: Sort, addresses: Iterable[str]) -> None:
    newest = db.session.scalar(select(func.max(User.id))) or 0
    add_users(addresses, make_password(None if sort is Sort.UNFINISHED else PASSWORD))
    changes: dict[Sort, dict[str, Any]] = {
        Sort.DEACTIVATED: {"is_active": False},
        Sort.THROTTLED: {"mailed_at": utcnow()},
    }
    if sort in changes:
        db.session.execute(update(User).where(User.id > newest).values(**changes[sort]))
        db.session.commit()
