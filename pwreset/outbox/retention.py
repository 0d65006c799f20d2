"""What is deleted, and when, so that nothing is kept longer than it is needed."""

from datetime import timedelta

from sqlalchemy import delete

from pwreset import accounts, outbox
from pwreset.accounts import login_throttle, sessions
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import SecurityEvent

FAILED_ROW_AGE = timedelta(days=30)
EVENT_AGE = timedelta(days=90)


def purge() -> None:
    """Delete unfinished accounts (7 days), failed rows (30 days) and security events (90 days), and commit.

    Failed logins are deleted after a day, and revoked sessions once their cookies have expired.
    """
    accounts.purge_unfinished()
    login_throttle.purge()
    sessions.purge_revoked()
    outbox.purge_failed(FAILED_ROW_AGE)
    db.session.execute(delete(SecurityEvent).where(SecurityEvent.created_at < utcnow() - EVENT_AGE))
    db.session.commit()
