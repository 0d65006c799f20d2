"""What is deleted when, so that nothing is kept longer than it is of use."""

from datetime import timedelta

from sqlalchemy import delete

from pwreset import accounts, outbox
from pwreset.accounts import login_throttle, sessions
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import SecurityEvent

FAILED_MAIL, SECURITY_EVENTS = timedelta(days=30), timedelta(days=90)


def purge() -> None:
    """Delete accounts never finished (7 days), mail that failed for good (30 days) and security events (90 days).

    Failed logins are forgotten after a day, and sessions that were logged out once their cookies have expired.
    """
    accounts.purge_unfinished()
    login_throttle.purge()
    sessions.purge_revoked()
    outbox.purge_failed(FAILED_MAIL)
    db.session.execute(delete(SecurityEvent).where(SecurityEvent.created_at < utcnow() - SECURITY_EVENTS))
    db.session.commit()
