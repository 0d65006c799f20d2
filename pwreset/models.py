"""The tables: accounts, mail waiting to be sent, what happened to accounts, failed logins, ended sessions, and counts.

Decides what is stored. No token, no plain password and no mail text is: links are made when the mail is written.
Who may write: `accounts` the users, `mail/outbox` the outbox, `events` the security events (`mail/retention` deletes),
`counters` the counters, `guessing` the login failures, `login` the ended sessions.
"""

from datetime import datetime
from typing import Any
from uuid import uuid4

from flask_login import UserMixin
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pwreset.clock import utcnow
from pwreset.database import UTCDateTime
from pwreset.extensions import db
from pwreset.passwords import check_password, is_password_usable

SQLITE_NEVER_REUSES_IDS = {"sqlite_autoincrement": True}  # or a purged account's link could open a newer account


class User(UserMixin, db.Model):  # type: ignore[name-defined]
    """An account: an address, a password or Django's unusable marker, and the stamp.

    The address was proven (a link mailed there set the password) or vouched for by an operator.

    `stamp` is the version of the account's credentials. Sessions and links carry or sign it, so changing it ends them
    all: an HMAC of the password hash alone could not end them without a new password, and re-hashing would end them
    without need.
    """

    __tablename__ = "users"
    __table_args__ = SQLITE_NEVER_REUSES_IDS

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(640), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    security_stamp: Mapped[str] = mapped_column("stamp", String(64))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    registered_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # None: made by a command, or elsewhere
    last_login: Mapped[datetime | None] = mapped_column(UTCDateTime)
    cooldown_started_at: Mapped[datetime | None] = mapped_column("mailed_at", UTCDateTime)

    def get_id(self) -> str:
        """Return what Flask-Login keeps in the session: `<id>.<stamp>`, dead once the stamp changes."""
        return f"{self.id}.{self.security_stamp}"

    def check_password(self, password: str) -> bool:
        """Whether this is the account's password; takes one hash's time either way."""
        return check_password(password, self.password_hash)

    def has_usable_password(self) -> bool:
        """Whether a password was ever chosen (Django's name)."""
        return is_password_usable(self.password_hash)


class OutboxMessage(db.Model):  # type: ignore[name-defined]
    """A mail somebody asked for, waiting to be written and sent.

    `run_after` is ready time, lease and back-off in one: due when it is past, and NULL once the row has failed for
    good. `leased` says whose time it is: a worker's, or the row's own. The address is the one typed; the mail goes to
    the one stored with the account.
    """

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "run_after", "id"), Index(None, "email_key", "id"), SQLITE_NEVER_REUSES_IDS)

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(String(32), default=lambda: uuid4().hex)
    kind: Mapped[str] = mapped_column(String(32))
    address: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(640))
    client_address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(200))
    language: Mapped[str | None] = mapped_column(String(35))
    origin: Mapped[str | None] = mapped_column(String(300))
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    run_after: Mapped[datetime | None] = mapped_column(UTCDateTime, default=utcnow)
    leased: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    failed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    failure: Mapped[str | None] = mapped_column(String(200))


class SecurityEvent(db.Model):  # type: ignore[name-defined]
    """Something that happened to an account, for its owner and the operator; `kind` is a name of `events.Kind`."""

    __tablename__ = "security_events"
    __table_args__ = (Index(None, "user_id", "created_at"), Index(None, "created_at"), SQLITE_NEVER_REUSES_IDS)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    client_address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(200))


class Counter(db.Model):  # type: ignore[name-defined]
    """How often something happened; `name` is one of `counters.Counted`, `kind` says to what."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)


class LoginFailures(db.Model):  # type: ignore[name-defined]
    """How often logins to one account failed from one network, and until when that network waits.

    `account` is a keyed hash of the address typed: there need be no account, and some type a password there.
    """

    __tablename__ = "login_failures"
    __table_args__ = (Index(None, "failed_at"),)

    account: Mapped[str] = mapped_column(String(64), primary_key=True)
    network: Mapped[str] = mapped_column(String(45), primary_key=True)
    failures: Mapped[int]
    failed_at: Mapped[datetime] = mapped_column(UTCDateTime)
    wait_until: Mapped[datetime | None] = mapped_column(UTCDateTime)


class RevokedSession(db.Model):  # type: ignore[name-defined]
    """A session that was logged out: its cookie is signed for days to come, and may have been copied."""

    __tablename__ = "ended_sessions"
    __table_args__ = (Index(None, "ended_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    ended_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
