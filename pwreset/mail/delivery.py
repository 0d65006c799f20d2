"""One pass over the outbox: claim, write, send, discard.

Decides what becomes of a row after each outcome, and when an address has had enough mail. Throttling happens here,
after the response, so it tells nobody anything. It must not be called from a view: a view that waited for it, or woke
it, would tell by its timing who has an account.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from flask import current_app
from flask_mail import Connection
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from pwreset import accounts, events
from pwreset.client import Client
from pwreset.clock import utcnow
from pwreset.events import Kind
from pwreset.extensions import db, mail
from pwreset.mail import mailbox, messages, outbox
from pwreset.mail.smtp import Deferred, Refused, ServerUnavailable
from pwreset.models import OutboxMessage, SecurityEvent, User

REQUESTS = {"password_reset": Kind.REQUESTED, "register": Kind.REGISTERED}
REQUEST_LIFETIME, NOTICE_LIFETIME = timedelta(hours=24), timedelta(days=7)
INTERVAL, HOURLY = timedelta(minutes=1), 5
logger = logging.getLogger(__name__)


def deliver_pending(should_stop: Callable[[], bool] = lambda: False) -> tuple[int, str | None]:
    """Deliver until nothing is due, over one connection.

    Args:
        should_stop: asked before each mail.

    Returns:
        How many rows were dealt with, and why the mail server takes no mail at all (None: it does).
    """
    done = 0
    with mail.connect() as connection:
        while not should_stop() and (row := outbox.claim()):
            try:
                _deliver(row, connection)
            except ServerUnavailable as error:
                outbox.release(row)
                return done, str(error)
            done += 1
    return done, None


def _deliver(row: OutboxMessage, connection: Connection) -> None:
    if row.created_at < utcnow() - (REQUEST_LIFETIME if row.kind in REQUESTS else NOTICE_LIFETIME):
        return _expire(row)
    letter = messages.letter_for(row)
    if letter is None:
        return outbox.discard(row)
    if row.kind in REQUESTS and letter.user:
        until = _throttled_until(letter.user)
        if until:
            return _merge_or_put_off(row, letter.user.id, until)
    return _send(row, letter, connection)


def _send(row: OutboxMessage, letter: messages.Letter, connection: Connection) -> None:
    user_id = letter.user.id if letter.user else None
    try:
        message = messages.write(row, letter)
        db.session.commit()  # no transaction stays open while the server is spoken to
        connection.send(message)
    except ServerUnavailable:
        _return_turn(user_id)
        raise
    except Deferred as error:
        _return_turn(user_id)
        outbox.back_off(row, str(error))
    except Refused as error:
        _give_up(row, user_id, str(error))
    except SQLAlchemyError:  # no fault of the row: it stays leased and comes again
        raise
    except Exception as error:  # noqa: BLE001 (a row that can't be written must not stop those behind it)
        db.session.rollback()
        _give_up(row, user_id, f"the mail could not be written ({type(error).__name__})")
    else:
        _note_sent(row, user_id, message)


def _note_sent(row: OutboxMessage, user_id: int | None, message: messages.Message) -> None:
    if row.kind in REQUESTS and user_id:
        events.record(REQUESTS[row.kind], user_id, Client(row.client_address, row.user_agent))
        events.record(Kind.MAILED, user_id)
    outbox.discard(row)
    logger.info("Mail %s sent (%s)", row.id, row.kind)
    if current_app.config["EMAIL_HOST"] is None:
        logger.info("Read it at %s/mailbox/%s", messages.origin_of(row), mailbox.identity_of(message))


def _give_up(row: OutboxMessage, user_id: int | None, why: str) -> None:
    _return_turn(user_id)
    events.record(Kind.REFUSED, user_id)
    outbox.give_up(row, why)
    logger.warning("Mail %s (%s) given up: %s", row.id, row.kind, why)


def _expire(row: OutboxMessage) -> None:
    events.record(Kind.EXPIRED, None)
    outbox.discard(row)
    logger.warning("Mail %s (%s) given up: it could not be sent in time", row.id, row.kind)


def _return_turn(user_id: int | None) -> None:
    if user_id:
        accounts.return_mail(user_id)
        db.session.commit()


def _throttled_until(user: User) -> datetime | None:
    """Return until when the account gets no more mail; None where this mail has taken the account's turn."""
    now = utcnow()
    mailed = (
        SecurityEvent.user_id == user.id,
        SecurityEvent.kind == Kind.MAILED,
        SecurityEvent.created_at > now - INTERVAL * 60,
    )
    newest = select(SecurityEvent.created_at).where(*mailed).order_by(SecurityEvent.created_at.desc()).limit(HOURLY)
    times = list(db.session.scalars(newest))
    if len(times) == HOURLY:
        return times[-1] + INTERVAL * 60
    if accounts.reserve_mail(user, INTERVAL):
        return None
    db.session.refresh(user)
    return (user.mailed_at or now) + INTERVAL


def _merge_or_put_off(row: OutboxMessage, user_id: int, until: datetime) -> None:
    if outbox.has_older_sibling(row):
        events.record(Kind.MERGED, user_id, Client(row.client_address, row.user_agent))
        outbox.discard(row)
    else:
        outbox.put_off(row, until)
