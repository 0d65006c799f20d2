"""One pass over the outbox: claim, write, send, discard.

Decides what becomes of a row after each outcome. It must not be called from a view: a view that waited for it, or woke
it, would tell by its timing who has an account.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count

from flask import current_app
from flask_mail import Connection
from sqlalchemy.exc import IntegrityError

from pwreset import accounts, outbox
from pwreset.accounts import Slot, events, release_slot
from pwreset.accounts.events import Kind
from pwreset.clock import at_most_every, utcnow
from pwreset.database import UNAVAILABLE
from pwreset.extensions import db, mail
from pwreset.mail import mailbox
from pwreset.mail.errors import Deferred, Refused, ServerUnavailable
from pwreset.mail.message import Message
from pwreset.models import OutboxMessage
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from pwreset.outbox import cooldown, emails
from pwreset.request_info import RequestInfo

REQUESTS = {"password_reset": Kind.REQUESTED, "register": Kind.REGISTERED}
REQUEST_LIFETIME, NOTICE_LIFETIME = timedelta(hours=24), timedelta(days=7)
LONGEST_OUTAGE = 600.0  # seconds that a sent mail waits for the database: a failover, an upgrade of the server
logger = logging.getLogger(__name__)


def deliver_pending(
    should_stop: Callable[[], bool] = lambda: False, tell: Callable[[int], None] = lambda _: None
) -> tuple[int, str | None]:
    """Deliver until nothing is due, over one connection.

    Args:
        should_stop: asked before each mail.
        tell: told after each mail how many there were.

    Returns:
        How many rows were dealt with, and why the mail server takes no mail at all (None: it does).
    """
    done = 0
    with mail.connect() as connection:
        while not should_stop() and (row := outbox.claim()):
            _note_that_somebody_delivers()
            try:
                _deliver(row, connection)
            except ServerUnavailable as error:
                outbox.release(row)
                _note_that_somebody_delivers()
                return done, str(error)
            done += 1
            tell(done)
    return done, None


def _note_that_somebody_delivers() -> None:
    if current_app.extensions.setdefault("pwreset_time_to_be_seen", at_most_every(5))():
        counters.add(Counted.WORKER_HEARTBEAT, "worker")
        db.session.commit()


def _deliver(row: OutboxMessage, connection: Connection) -> None:
    oldest = utcnow() - (REQUEST_LIFETIME if row.kind in REQUESTS else NOTICE_LIFETIME)
    if row.created_at < oldest:
        return _expire(row, oldest)
    try:
        letter = emails.draft_for(row)
    except LookupError:  # a newer version asked for it, and one of its workers will know
        outbox.back_off(row, "this version does not know this mail")
        return None
    if letter is None:
        return outbox.discard(row, Counted.NO_RECIPIENT)
    if row.kind not in REQUESTS or letter.user is None:
        return _send(row, letter, None, connection)
    turn = cooldown.claim_slot(letter.user, REQUESTS[row.kind])
    if isinstance(turn, Slot):
        db.session.commit()  # writing a mail takes its time, and SQLite has one lock for all who write
        return _send(row, letter, turn, connection)
    return cooldown.merge_or_put_off(row, letter.user.id, turn)


def _send(row: OutboxMessage, letter: emails.EmailDraft, turn: Slot | None, connection: Connection) -> None:
    user_id = letter.user.id if letter.user else None
    message = _write(row, letter, user_id, turn)
    if message is not None:
        _hand_over(row, user_id, message, turn, connection)


def _write(row: OutboxMessage, letter: emails.EmailDraft, user_id: int | None, turn: Slot | None) -> Message | None:
    try:
        message = emails.write(row, letter)
    except UNAVAILABLE:  # no fault of the row: it stays leased and comes again
        raise
    except Exception as error:  # noqa: BLE001 (a row that can't be written must not stop those behind it)
        db.session.rollback()
        _hand_back(turn)
        _give_up(row, user_id, f"the mail could not be written ({type(error).__name__})")
        return None
    db.session.commit()  # no transaction stays open while the server is spoken to
    return message


def _hand_over(
    row: OutboxMessage, user_id: int | None, message: Message, turn: Slot | None, connection: Connection
) -> None:
    try:
        connection.send(message)
    except ServerUnavailable:
        _hand_back(turn)
        raise
    except Deferred as error:
        if error.maybe_sent:  # it counts as sent, or a server that hangs up could be made to mail without end
            _record_sent(row, user_id)
        else:
            _hand_back(turn)
        outbox.back_off(row, str(error))
    except Refused as error:
        _hand_back(turn)
        _give_up(row, user_id, str(error))
    else:
        _take_away(row, user_id)
        _say_sent(row, message)


def _take_away(row: OutboxMessage, user_id: int | None) -> None:
    """Delete the row of a mail that is out; a database that is away is waited for, or a second copy would follow."""
    began, lease = time.monotonic(), current_app.config["OUTBOX_LEASE_SECONDS"]
    for tries in count(1):
        try:
            if tries == 1 or not outbox.is_gone(row):  # or the last try went through, and only its answer was lost
                # After a lease without its events: better than a mail a minute, if they alone can't be written.
                _record_sent(row, user_id if time.monotonic() - began < lease else None)
                outbox.discard(row, Counted.DELIVERED)
            break
        except IntegrityError:  # the account was deleted meanwhile, and its events with it
            db.session.rollback()
            user_id = None
        except UNAVAILABLE:
            db.session.rollback()
            # Twice at least: a process that was frozen finds its time over, and its old connection dead.
            if tries > 1 and time.monotonic() - began >= LONGEST_OUTAGE:
                raise
            time.sleep(0.5)


def _say_sent(row: OutboxMessage, message: Message) -> None:
    if current_app.config["EMAIL_HOST"] is None:
        identity = mailbox.identity_of(message)
        logger.info(
            "Mail %s (%s) kept: %s/mailbox/%s", row.id, row.kind, emails.origin_of(row), identity, extra=_ids(row)
        )
    else:
        logger.info("Mail %s (%s) sent", row.id, row.kind, extra=_ids(row))


def _record_sent(row: OutboxMessage, user_id: int | None) -> None:
    if row.kind in REQUESTS and user_id:
        events.record(REQUESTS[row.kind], user_id, RequestInfo(row.client_address, row.user_agent))
        events.record(Kind.EMAIL_SENT, user_id)


def _give_up(row: OutboxMessage, user_id: int | None, why: str) -> None:
    events.record(Kind.REFUSED, user_id)
    if outbox.give_up(row, why):
        logger.warning("Mail %s (%s) given up: %s", row.id, row.kind, why, extra=_ids(row))


def _expire(row: OutboxMessage, oldest: datetime) -> None:
    user = accounts.find(row.address)
    events.record(Kind.EXPIRED, user.id if user else None)
    if outbox.expire(row, oldest):
        logger.warning("Mail %s (%s) given up: it could not be sent in time", row.id, row.kind, extra=_ids(row))
    else:
        outbox.release(row)


def _hand_back(turn: Slot | None) -> None:
    if turn:
        release_slot(turn)
        db.session.commit()


def _ids(row: OutboxMessage) -> dict[str, object]:
    """Return what a structured log line tells of a mail; never whose it is."""
    return {"mail": row.id, "kind": row.kind, "message_id": row.message_id, "attempts": row.attempts}
