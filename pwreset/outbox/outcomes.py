"""The possible outcomes of an attempt to deliver a row's email: one table, which `queue.settle` applies.

The table states for each outcome whether the row is deleted or how it changes, which counter and event are written,
whether the account's cooldown slot is kept, and whether the worker must still have the lease. It writes nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Any

from pwreset.accounts.events import Kind
from pwreset.clock import utcnow
from pwreset.models import OutboxMessage
from pwreset.monitoring.counters import Counted

FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(hours=1)


class Result(StrEnum):
    """The names of the outcomes."""

    SENT = auto()  # the server accepted the email
    MAYBE_SENT = auto()  # the server has the complete email but did not reply: it counts as sent, and is sent again
    RETRY = auto()  # the attempt failed for now
    FAILED = auto()  # the email can't be sent; the row stays for the operator
    EXPIRED = auto()  # the row waited longer than the lifetime of its kind
    NO_RECIPIENT = auto()  # there is no account, or none that may get email
    MERGED = auto()  # an older row for the same address waits, and its email answers both requests
    DEFERRED = auto()  # the account's cooldown is not over
    RELEASED = auto()  # the server accepts no email at all, so the attempt is not charged to this row


@dataclass(frozen=True)
class Outcome:
    """The outcome of one attempt.

    Attributes:
        result: its name.
        user_id: the account that its event belongs to, or None.
        reason: why it failed, in plain words without an address.
        until: for a merged or deferred row, when the account's slot will be free.
        created_before: an expired row must have been requested before this time. If a newer request has merged into it
            since, it was not; then it is released.
    """

    result: Result
    user_id: int | None = None
    reason: str | None = None
    until: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True)
class Effect:
    """What settling an outcome writes.

    Attributes:
        new_values: returns the columns that change; None if the row is deleted.
        counter: the counter to increment.
        event: the security event to record.
        keeps_slot: whether the account's cooldown continues.
        needs_lease: whether nothing is written if the lease was lost.
        fallback: the result to settle instead if this one does not apply.
    """

    new_values: Callable[[OutboxMessage, Outcome], dict[str, Any]] | None = None
    counter: Counted | None = None
    event: Kind | None = None
    keeps_slot: bool = False
    needs_lease: bool = True
    fallback: Result | None = None


def _retry_later(row: OutboxMessage, outcome: Outcome) -> dict[str, Any]:
    delay = min(FIRST_RETRY * 2 ** min(row.attempts, 10), LONGEST_RETRY)
    return {"run_after": utcnow() + delay, "attempts": row.attempts + 1, "failure": outcome.reason}


def _fail(_row: OutboxMessage, outcome: Outcome) -> dict[str, Any]:
    return {"run_after": None, "failed_at": utcnow(), "failure": outcome.reason}


def _defer(_row: OutboxMessage, outcome: Outcome) -> dict[str, Any]:
    return {"run_after": outcome.until}


def _release(row: OutboxMessage, _outcome: Outcome) -> dict[str, Any]:
    return {"run_after": min(row.created_at, utcnow())}  # it keeps its place in the queue


EFFECTS = {
    # The email was sent: its row is deleted even if the lease was lost, or another copy would follow.
    Result.SENT: Effect(None, Counted.DELIVERED, Kind.EMAIL_SENT, keeps_slot=True, needs_lease=False),
    # It counts as sent, so that the cooldown also limits emails to a server that accepts them but does not reply.
    Result.MAYBE_SENT: Effect(_retry_later, Counted.RETRIED, Kind.EMAIL_SENT, keeps_slot=True),
    Result.RETRY: Effect(_retry_later, Counted.RETRIED),
    Result.FAILED: Effect(_fail, Counted.FAILED, Kind.REFUSED),
    Result.EXPIRED: Effect(None, Counted.EXPIRED, Kind.EXPIRED, fallback=Result.RELEASED),
    Result.NO_RECIPIENT: Effect(None, Counted.NO_RECIPIENT),
    Result.MERGED: Effect(None, Counted.MERGED, Kind.MERGED, fallback=Result.DEFERRED),
    Result.DEFERRED: Effect(_defer),
    Result.RELEASED: Effect(_release),
}
