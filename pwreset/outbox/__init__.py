"""The queue of emails: its rows, what becomes of them, and who delivers them."""

from pwreset.outbox.kinds import EmailKind
from pwreset.outbox.outcomes import Outcome, Result
from pwreset.outbox.queue import claim, enqueue, exists, purge_failed, repair_future_dates, retry_failed, settle

__all__ = [
    "EmailKind",
    "Outcome",
    "Result",
    "claim",
    "enqueue",
    "exists",
    "purge_failed",
    "repair_future_dates",
    "retry_failed",
    "settle",
]
