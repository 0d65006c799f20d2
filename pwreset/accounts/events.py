"""The security events of an account, for its owner and the operator.

Decides which events there are and how each reads. No token, password or typed address is kept. `record` adds a row to
the current transaction and never commits, so an event exists exactly if the change that it describes does.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select

from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.request_info import RequestInfo, browser


class Kind(StrEnum):
    """The names of the events, as stored."""

    REGISTERED = "registered"
    REQUESTED = "requested"
    EMAIL_SENT = "mailed"
    MERGED = "merged"
    EXPIRED = "expired"
    REFUSED = "refused"
    LINK_OPENED = "link_opened"
    COMPLETED = "completed"
    CHANGED = "changed"
    LOGGED_IN = "logged_in"
    LOGIN_FAILED = "login_failed"
    LIMITED = "limited"
    SIGNED_OUT_EVERYWHERE = "signed_out_everywhere"
    CANCELLED = "cancelled"
    SECURED = "secured"
    SET_BY_ADMIN = "set_by_admin"
    LINK_PRINTED = "link_printed"
    DEACTIVATED = "deactivated"
    ACTIVATED = "activated"


DESCRIPTIONS: dict[str, str] = {
    Kind.REGISTERED: "Registration asked for",
    Kind.REQUESTED: "Password reset asked for",
    Kind.EMAIL_SENT: "Mail sent",
    Kind.MERGED: "Asked again within a short time: one mail for both",
    Kind.EXPIRED: "Mail given up: it could not be sent in time",
    Kind.REFUSED: "Mail given up: it was refused, or could not be written",
    Kind.LINK_OPENED: "Link from a mail opened",
    Kind.COMPLETED: "Password set through a mailed link",
    Kind.CHANGED: "Password changed",
    Kind.LOGGED_IN: "Logged in",
    Kind.LOGIN_FAILED: "Failed login",
    Kind.LIMITED: "Too many tries from one network: it has to wait",
    Kind.SIGNED_OUT_EVERYWHERE: "Signed out everywhere",
    Kind.CANCELLED: 'Mailed links and sessions ended by "This wasn\'t me"',
    Kind.SECURED: 'Password and sessions ended by "This wasn\'t me"',
    Kind.SET_BY_ADMIN: "Password set by an administrator",
    Kind.LINK_PRINTED: "Reset link printed by an administrator",
    Kind.DEACTIVATED: "Account deactivated",
    Kind.ACTIVATED: "Account activated",
}


# After one of these, no link that was emailed before works.
END_LINKS = frozenset(
    {
        Kind.COMPLETED,
        Kind.CHANGED,
        Kind.LOGGED_IN,
        Kind.SIGNED_OUT_EVERYWHERE,
        Kind.CANCELLED,
        Kind.SECURED,
        Kind.SET_BY_ADMIN,
        Kind.DEACTIVATED,
        Kind.ACTIVATED,
    }
)


# Events that any person who knows the address can cause, any number of times.
BY_STRANGERS = frozenset(
    {
        Kind.REGISTERED,
        Kind.REQUESTED,
        Kind.EMAIL_SENT,
        Kind.MERGED,
        Kind.EXPIRED,
        Kind.REFUSED,
        Kind.LOGIN_FAILED,
        Kind.LIMITED,
    }
)


class Entry(NamedTuple):
    """An event in words."""

    created_at: datetime
    description: str
    client_address: str | None
    browser: str | None


def record(kind: Kind, user_id: int | None, request_info: RequestInfo | None = None) -> None:
    """Add an event to the current transaction.

    Args:
        kind: what happened.
        user_id: the account, or None if there is none.
        request_info: where the request came from; None for the program itself.
    """
    info = request_info or RequestInfo()
    db.session.add(SecurityEvent(kind=kind, user_id=user_id, client_address=info.address, user_agent=info.user_agent))


def count(kind: Kind) -> int:
    """Return how many events of a kind are kept, with and without an account."""
    return db.session.scalar(select(func.count()).where(SecurityEvent.kind == kind)) or 0


def latest(user: User, limit: int = 20) -> list[Entry]:
    """Return the newest events of an account as a person reads them, newest first.

    Args:
        user: the account.
        limit: how many of the events that strangers can cause, and how many others: a stranger must not be able to push
            a login out of the list.
    """
    by_strangers = SecurityEvent.kind.in_(BY_STRANGERS)
    rows = [*_newest(user, limit, by_strangers), *_newest(user, limit, ~by_strangers)]
    return [
        Entry(row.created_at, DESCRIPTIONS.get(row.kind, row.kind), row.client_address, browser(row.user_agent))
        for row in sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)
    ]


def _newest(user: User, limit: int, which: ColumnElement[bool]) -> Iterable[SecurityEvent]:
    newest = SecurityEvent.created_at.desc(), SecurityEvent.id.desc()
    return db.session.scalars(
        select(SecurityEvent).where(SecurityEvent.user_id == user.id, which).order_by(*newest).limit(limit)
    )
