"""One pass over the outbox: claim a row, attempt to deliver its email, settle the outcome.

An `Attempt` decides the outcome and returns it; `queue.settle` writes it. A view must not call this module: a view that
waited for delivery, or started it, would show by its response time who has an account.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from flask import current_app
from flask_mail import Connection
from sqlalchemy.exc import IntegrityError

from pwreset import accounts, outbox
from pwreset.clock import utcnow
from pwreset.database import UNAVAILABLE
from pwreset.extensions import db, mail
from pwreset.mail import mailbox
from pwreset.mail.errors import Deferred, Refused, ServerUnavailable
from pwreset.mail.message import Message
from pwreset.models import OutboxMessage
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from pwreset.outbox import cooldown, emails
from pwreset.outbox.cooldown import Slot
from pwreset.outbox.kinds import NOTICE_LIFETIME, EmailKind
from pwreset.outbox.outcomes import Outcome, Result
from pwreset.state import AppState

LONGEST_OUTAGE = 600.0  # seconds to wait for the database after a send: a failover, or an upgrade of the server
logger = logging.getLogger(__name__)


def deliver_pending(
    should_stop: Callable[[], bool] = lambda: False, on_progress: Callable[[int], None] = lambda _: None
) -> tuple[int, str | None]:
    """Deliver until nothing is due, over one connection.

    Args:
        should_stop: called before each email; True ends the pass.
        on_progress: called after each email with the number so far.

    Returns:
        How many rows were settled, and why the mail server accepts no email at all (None if it accepts emails).
    """
    done = 0
    with mail.connect() as connection:
        while not should_stop() and (row := outbox.claim()):
            _record_heartbeat()
            outcome = _deliver(row, connection)
            if outcome.result is Result.RELEASED:
                _record_heartbeat()
                return done, outcome.reason
            done += 1
            on_progress(done)
    return done, None


class Attempt:
    """One attempt to deliver the email of a row.

    Args:
        row: leased.

    Attributes:
        slot: the cooldown slot that the attempt claimed, for `queue.settle`.
        message: the email, once it is written.
    """

    def __init__(self, row: OutboxMessage) -> None:
        self.row = row
        self.slot: Slot | None = None
        self.message: Message | None = None

    def make(self, connection: Connection) -> Outcome:
        """Make the attempt and return its outcome. Only the claimed slot is recorded yet.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database is unavailable; the row stays leased and is tried again later.
        """
        try:
            kind: EmailKind | None = EmailKind(self.row.kind)
        except ValueError:  # a newer version added it, and one of its workers can send it
            kind = None
        oldest = utcnow() - (kind.lifetime if kind else NOTICE_LIFETIME)
        if self.row.created_at < oldest:
            user = accounts.find(self.row.address)
            return Outcome(Result.EXPIRED, user_id=user and user.id, created_before=oldest)
        if kind is None:
            return Outcome(Result.RETRY, reason="this version does not know this kind of email")
        return self._deliver_to_account(kind, connection)

    def _deliver_to_account(self, kind: EmailKind, connection: Connection) -> Outcome:
        draft = emails.draft_for(self.row)
        if draft is None:
            return Outcome(Result.NO_RECIPIENT)
        user_id = draft.user and draft.user.id
        if kind.event and draft.user:
            slot = cooldown.claim(draft.user, kind)
            if not isinstance(slot, Slot):
                return Outcome(Result.MERGED, user_id, until=slot)
            self.slot = slot
        return replace(self._write_and_send(draft, connection), user_id=user_id)

    def _write_and_send(self, draft: emails.EmailDraft, connection: Connection) -> Outcome:
        try:
            self.message = emails.write(self.row, draft)
            db.session.commit()  # no transaction stays open while the mail server is spoken to
        except UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 (a row that can't be written must not stop those behind it)
            db.session.rollback()
            return Outcome(Result.FAILED, reason=f"the email could not be written ({type(error).__name__})")
        return self._send(self.message, connection)

    def _send(self, message: Message, connection: Connection) -> Outcome:
        try:
            connection.send(message)
        except ServerUnavailable as error:
            return Outcome(Result.RELEASED, reason=str(error))
        except Deferred as error:
            return Outcome(Result.MAYBE_SENT if error.maybe_sent else Result.RETRY, reason=str(error))
        except Refused as error:
            return Outcome(Result.FAILED, reason=str(error))
        return Outcome(Result.SENT)


def _deliver(row: OutboxMessage, connection: Connection) -> Outcome:
    attempt = Attempt(row)
    outcome = attempt.make(connection)
    if outcome.result is Result.SENT:
        _settle_sent(row, outcome)
    elif outbox.settle(row, outcome, attempt.slot) != outcome:
        return outcome  # another worker has the row now, or the fallback was settled
    _log(row, outcome, attempt.message)
    return outcome


def _settle_sent(row: OutboxMessage, outcome: Outcome) -> None:
    """Settle the row of an email that was sent; wait for an unavailable database, or a second copy would follow."""
    started = time.monotonic()
    lease = current_app.config["OUTBOX_LEASE_SECONDS"]
    for tries in count(1):
        try:
            if tries == 1 or outbox.exists(row):  # otherwise the last try was committed, and only the reply was lost
                outbox.settle(row, outcome)
        except IntegrityError:  # the account was deleted meanwhile, and its events with it
            db.session.rollback()
            outcome = replace(outcome, user_id=None)
        except UNAVAILABLE:
            db.session.rollback()
            waited = time.monotonic() - started
            # Two tries at least: for a process that was frozen, the time is over and the old connection is closed.
            if tries > 1 and waited >= LONGEST_OUTAGE:
                raise
            if waited >= lease:  # if only the events can't be written, a second copy would follow
                outcome = replace(outcome, user_id=None)
            time.sleep(0.5)
        else:
            return


def _record_heartbeat() -> None:
    state: AppState = current_app.extensions["pwreset"]
    if state.heartbeat_is_due():
        counters.add(Counted.WORKER_HEARTBEAT, "worker")
        db.session.commit()


def _log(row: OutboxMessage, outcome: Outcome, message: Message | None) -> None:
    # The log must not name the recipient.
    extra = {"email_id": row.id, "kind": row.kind, "message_id": row.message_id, "attempts": row.attempts}
    if outcome.result is Result.SENT and message and current_app.config["EMAIL_HOST"] is None:
        link = f"{emails.origin_of(row)}/mailbox/{mailbox.identity_of(message)}"
        logger.info("Email %s (%s) kept: %s", row.id, row.kind, link, extra=extra)
    elif outcome.result is Result.SENT:
        logger.info("Email %s (%s) sent", row.id, row.kind, extra=extra)
    elif outcome.result in {Result.FAILED, Result.EXPIRED}:
        reason = outcome.reason or "it could not be sent in time"
        logger.warning("Email %s (%s) not delivered: %s", row.id, row.kind, reason, extra=extra)
