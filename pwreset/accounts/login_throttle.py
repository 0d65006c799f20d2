"""Slows down who guesses passwords: for each account and each network it is guessed from.

Decides how long a network waits after failed logins to one account: not at all at first, then twice as long each time.
Another network does not wait, so nobody locks somebody else out; an address without an account makes wait just the
same. A try is counted before its password is looked at, since of many tries at once all would find the same count. It
must not look accounts up, and keeps no address: what was typed is stored as a keyed hash.
"""

import hmac
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil

from flask import current_app
from sqlalchemy import ColumnElement, and_, case, delete, literal, or_, select

from pwreset.addresses import email_key
from pwreset.clock import utcnow
from pwreset.database import INSERT, UTCDateTime
from pwreset.extensions import db
from pwreset.models import LoginFailures
from pwreset.request_info import network_of

KEPT = timedelta(days=1)  # without a failure in between
CLOCKS_DIFFER = timedelta(minutes=2)  # between two machines, and nobody's clock was set


class LoginThrottled(Exception):
    """The password is not looked at, be it right or wrong.

    Args:
        seconds: until the next try is looked at, at least 1.
    """

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"wait {retry_after} seconds")


def count_attempt(address: str, client_address: str | None) -> int:
    """Count a login as failed until it turns out right, and commit.

    Args:
        address: as typed; all spellings of one address count together.
        client_address: where it comes from.

    Returns:
        How many failed in a row, this one too; 0 with RATELIMIT_ENABLED=false, where nothing is counted.

    Raises:
        LoginThrottled: the failures before this one say so; nothing is counted then.
    """
    if not current_app.config["RATELIMIT_ENABLED"]:
        return 0
    now, mine = utcnow(), (_hashed(address), network_of(client_address))
    failures = _count(mine, now)
    db.session.commit()
    if failures is None:
        raise LoginThrottled(_seconds_left(mine, now))
    return failures


def clear_network(address: str, client_address: str | None) -> None:
    """Take back in the present transaction what failed from one network: the password was right."""
    here = LoginFailures.network == network_of(client_address)
    db.session.execute(delete(LoginFailures).where(LoginFailures.account == _hashed(address), here))


def clear_account(address: str) -> None:
    """Take back in the present transaction what failed from anywhere: the account has a new password."""
    db.session.execute(delete(LoginFailures).where(LoginFailures.account == _hashed(address)))


def purge() -> None:
    """Delete in the present transaction what is forgotten by now."""
    db.session.execute(delete(LoginFailures).where(LoginFailures.failed_at < utcnow() - KEPT))


def is_throttled(failures: int) -> bool:
    """Whether so many failures in a row make a network wait."""
    return failures > int(current_app.config["LOGIN_FREE_FAILURES"])


def wait_after(failures: int) -> timedelta:
    """Return how long a network waits after so many failures in a row."""
    if not is_throttled(failures):
        return timedelta()
    doublings = min(failures - current_app.config["LOGIN_FREE_FAILURES"] - 1, 20)
    seconds = current_app.config["LOGIN_FIRST_WAIT"] * 2**doublings
    return timedelta(seconds=min(seconds, current_app.config["LOGIN_LONGEST_WAIT"]))


def _hashed(address: str) -> str:
    key = current_app.config["SECRET_KEY"].encode()
    return hmac.digest(key, b"login failures of " + email_key(address).encode(), sha256).hex()


def _count(mine: tuple[str, str], now: datetime) -> int | None:
    # One statement: of many tries at once each finds the count of the one before.
    table = INSERT[db.engine.dialect.name](LoginFailures)
    first = table.values(account=mine[0], network=mine[1], failures=1, failed_at=now)  # one is free at least
    counted = first.on_conflict_do_update(
        index_elements=["account", "network"], set_=_one_more(now), where=_may_try(now)
    )
    failures: int | None = db.session.scalar(counted.returning(LoginFailures.failures))
    return failures


def _wait_until(now: datetime, failures: int) -> datetime | None:
    # NULL and not `now`: another process may read the clock a little earlier.
    return now + wait_after(failures) if is_throttled(failures) else None


def _may_try(now: datetime) -> ColumnElement[bool]:
    # A wait that lasts longer than any was begun before the clock was set back.
    over, longest = LoginFailures.wait_until <= now, timedelta(seconds=current_app.config["LOGIN_LONGEST_WAIT"])
    return or_(LoginFailures.wait_until.is_(None), over, LoginFailures.wait_until > now + longest + CLOCKS_DIFFER)


def _one_more(now: datetime) -> dict[str, object]:
    long_ago = LoginFailures.failed_at < now - KEPT
    waits, failures = [(long_ago, _moment(None))], 1  # a first failure, as in `_count`
    while wait_after(failures) < timedelta(seconds=current_app.config["LOGIN_LONGEST_WAIT"]):
        failures += 1
        waits.append((LoginFailures.failures == failures - 1, _moment(_wait_until(now, failures))))
    return {
        "failures": case((long_ago, 1), else_=LoginFailures.failures + 1),
        "failed_at": now,
        "wait_until": case(*waits, else_=_moment(_wait_until(now, failures))),
    }


def _moment(moment: datetime | None) -> ColumnElement[datetime | None]:
    return literal(moment, UTCDateTime)


def _seconds_left(mine: tuple[str, str], now: datetime) -> int:
    pair = and_(LoginFailures.account == mine[0], LoginFailures.network == mine[1])
    until = db.session.scalar(select(LoginFailures.wait_until).where(pair))
    db.session.rollback()
    return max(1, ceil(((until or now) - now).total_seconds()))
