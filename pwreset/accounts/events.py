"""The security events of an account, for its owner and the operator.

Defines the events and their descriptions. No token, password or typed address is stored. `record` adds a row to the
current transaction and never commits, so an event is stored exactly if the change that it describes is.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self

from sqlalchemy import ColumnElement, func, select

from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.request_info import RequestInfo, browser

BY_STRANGER = "any person who knows the address can cause it, any number of times"
ENDS_LINKS = "no link that was emailed before works afterwards"


class Kind(StrEnum):
    """The names of the events, as stored, each with a description for people and a note about its cause or effect."""

    description: str
    note: str

    REGISTERED = "registered", "Registration asked for", BY_STRANGER
    REQUESTED = "requested", "Password reset asked for", BY_STRANGER
    EMAIL_SENT = "mailed", "Mail sent", BY_STRANGER
    MERGED = "merged", "Asked again within a short time: one mail for both", BY_STRANGER
    EXPIRED = "expired", "Mail given up: it could not be sent in time", BY_STRANGER
    REFUSED = "refused", "Mail given up: it was refused, or could not be written", BY_STRANGER
    LINK_OPENED = "link_opened", "Link from a mail opened"
    COMPLETED = "completed", "Password set through a mailed link", ENDS_LINKS
    CHANGED = "changed", "Password changed", ENDS_LINKS
    LOGGED_IN = "logged_in", "Logged in", ENDS_LINKS
    LOGIN_FAILED = "login_failed", "Failed login", BY_STRANGER
    LIMITED = "limited", "Too many tries from one network: it has to wait", BY_STRANGER
    SIGNED_OUT_EVERYWHERE = "signed_out_everywhere", "Signed out everywhere", ENDS_LINKS
    CANCELLED = "cancelled", 'Mailed links and sessions ended by "This wasn\'t me"', ENDS_LINKS
    SECURED = "secured", 'Password and sessions ended by "This wasn\'t me"', ENDS_LINKS
    SET_BY_ADMIN = "set_by_admin", "Password set by an administrator", ENDS_LINKS
    LINK_PRINTED = "link_printed", "Reset link printed by an administrator"
    DEACTIVATED = "deactivated", "Account deactivated", ENDS_LINKS
    ACTIVATED = "activated", "Account activated", ENDS_LINKS

    def __new__(cls, name: str, description: str = "", note: str = "") -> Self:
        """Keep the attributes beside the name."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.description = description
        kind.note = note
        return kind


DESCRIPTIONS = {kind.value: kind.description for kind in Kind}
END_LINKS = frozenset(kind for kind in Kind if kind.note == ENDS_LINKS)
BY_STRANGERS = frozenset(kind for kind in Kind if kind.note == BY_STRANGER)


class Entry(NamedTuple):
    """An event as a page or a command shows it."""

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
    """Return the newest events of an account in words, newest first.

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
