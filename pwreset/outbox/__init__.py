"""The queue of emails: its rows, what becomes of them, and who delivers them."""

from pwreset.outbox.queue import (
    back_off,
    claim,
    discard,
    enqueue,
    expire,
    give_up,
    is_gone,
    merge,
    purge_failed,
    put_off,
    recall,
    release,
    retry,
)

repair_future_dates, retry_failed = recall, retry
