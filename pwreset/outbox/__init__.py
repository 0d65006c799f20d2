"""The queue of emails: its rows, the outcomes of attempts to deliver them, and the worker."""

from pwreset.outbox.kinds import EmailKind as EmailKind
from pwreset.outbox.outcomes import Outcome as Outcome
from pwreset.outbox.outcomes import Result as Result
from pwreset.outbox.queue import claim as claim
from pwreset.outbox.queue import enqueue as enqueue
from pwreset.outbox.queue import exists as exists
from pwreset.outbox.queue import purge_failed as purge_failed
from pwreset.outbox.queue import repair_future_dates as repair_future_dates
from pwreset.outbox.queue import retry_failed as retry_failed
from pwreset.outbox.queue import settle as settle
