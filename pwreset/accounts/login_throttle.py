"""Limits how fast passwords can be guessed, for each account and each network.

After LOGIN_FREE_FAILURES failed logins in a row, a network must wait before its next attempt at that account, and each
further failure doubles the wait. Other networks don't wait, so nobody can lock the owner out. An address without an
account is throttled in the same way and by the same statements, so the throttle does not reveal who has an account.

An attempt is counted before its password is checked: otherwise many simultaneous attempts would read the same count.
This module must not look up accounts. It stores no address, only a keyed hash of what was typed.
"""

import hmac
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil

from flask import current_app
from sqlalchemy import delete

from pwreset.addresses import email_key
from pwreset.clock import CLOCK_TOLERANCE, utcnow
from pwreset.database import INSERT
from pwreset.extensions import db
from pwreset.models import LoginFailures
from pwreset.request_info import network_of

RETENTION = timedelta(days=1)
"""How long failures count after the last of them."""


class LoginThrottled(Exception):
    """Too many logins failed, so the password was not checked.

    Args:
        retry_after: seconds until the next attempt is allowed, at least 1.
    """

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"wait {retry_after} seconds")


def count_attempt(address: str, client_address: str | None) -> int:
    """Count a login as failed before its password is checked, and commit; `clear_network` undoes it.

    Args:
        address: as typed; all spellings of one address count together.
        client_address: the IP address that the login comes from.

    Returns:
        The number of failures in a row, this one included; 0 with RATELIMIT_ENABLED=false, where nothing is counted.

    Raises:
        LoginThrottled: the network has to wait after earlier failures. This attempt is not counted.
    """
    if not current_app.config["RATELIMIT_ENABLED"]:
        return 0
    now = utcnow()
    row = _locked_row(_hashed(address), network_of(client_address), now)
    if wait := _remaining_wait(row, now):
        db.session.rollback()
        raise LoginThrottled(ceil(wait.total_seconds()))
    failures = _add_failure(row, now)
    db.session.commit()
    return failures


def clear_network(address: str, client_address: str | None) -> None:
    """Delete an account's failures from one network, after a correct password. The caller commits."""
    same_network = LoginFailures.network == network_of(client_address)
    db.session.execute(delete(LoginFailures).where(LoginFailures.account == _hashed(address), same_network))


def clear_account(address: str) -> None:
    """Delete an account's failures from all networks, after a new password was set. The caller commits."""
    db.session.execute(delete(LoginFailures).where(LoginFailures.account == _hashed(address)))


def purge() -> None:
    """Delete failures that no longer count. The caller commits."""
    db.session.execute(delete(LoginFailures).where(LoginFailures.failed_at < utcnow() - RETENTION))


def is_throttled(failures: int) -> bool:
    """Whether a network has to wait after this many failures in a row."""
    return failures > int(current_app.config["LOGIN_FREE_FAILURES"])


def _wait_after(failures: int) -> timedelta:
    """Return how long a network has to wait after this many failures, more than LOGIN_FREE_FAILURES."""
    doublings = min(failures - current_app.config["LOGIN_FREE_FAILURES"] - 1, 20)
    return min(timedelta(seconds=current_app.config["LOGIN_FIRST_WAIT"] * 2**doublings), _longest_wait())


def _longest_wait() -> timedelta:
    return timedelta(seconds=current_app.config["LOGIN_LONGEST_WAIT"])


def _hashed(address: str) -> str:
    key = current_app.config["SECRET_KEY"].encode()
    return hmac.digest(key, b"login failures of " + email_key(address).encode(), sha256).hex()


def _locked_row(account: str, network: str, now: datetime) -> LoginFailures:
    """Return the row of an account and a network, created if missing, and locked until the transaction ends.

    The update changes no value. It acquires the row's lock on PostgreSQL and the write lock on SQLite, even for two
    simultaneous first failures, and it returns the latest row. SELECT ... FOR UPDATE is not enough: SQLite ignores it,
    and on PostgreSQL it finds no row to lock before the first failure.
    """
    new = INSERT[db.engine.dialect.name](LoginFailures)
    new = new.values(account=account, network=network, failures=0, failed_at=now)
    locked = new.on_conflict_do_update(
        index_elements=["account", "network"], set_={"failures": LoginFailures.failures}
    ).returning(LoginFailures)
    row: LoginFailures = db.session.scalars(locked, execution_options={"populate_existing": True}).one()
    return row


def _remaining_wait(row: LoginFailures, now: datetime) -> timedelta:
    wait = (row.wait_until or now) - now
    # A wait that is longer than the longest one was written before a clock was set back.
    return wait if timedelta() < wait <= _longest_wait() + CLOCK_TOLERANCE else timedelta()


def _add_failure(row: LoginFailures, now: datetime) -> int:
    row.failures = failures = 1 if row.failed_at < now - RETENTION else row.failures + 1
    row.failed_at = now
    # NULL rather than `now` if there is no wait, because another machine's clock may be slightly behind.
    row.wait_until = now + _wait_after(failures) if is_throttled(failures) else None
    return failures
