"""The tables: accounts, emails waiting to be sent, security events, failed logins, revoked sessions, and counters.

No token, no plain password and no text of an email is stored: links are created when an email is written. Each table is
written by one module: users by `accounts.service` (their cooldown by `outbox.cooldown`), the outbox by `outbox.queue`,
events by `accounts.events` (`outbox.retention` deletes them), counters by `monitoring.counters`, login failures by
`accounts.login_throttle`, revoked sessions by `accounts.sessions`. Names in the database are kept when an attribute
gets a better one, so that the previous version still runs during an upgrade.
"""

from datetime import datetime
from typing import Any
from uuid import uuid4

from flask_login import UserMixin
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pwreset.clock import UTCDateTime, utcnow
from pwreset.extensions import db
from pwreset.passwords.hashing import check_password, is_password_usable

SQLITE_NEVER_REUSES_IDS = {"sqlite_autoincrement": True}  # or the link of a purged account could open a newer one


class User(UserMixin, db.Model):  # type: ignore[name-defined]
    """An account: an address, a password or Django's unusable marker, and the security stamp.

    The owner proved the address (an emailed link set the password), or an operator entered it.

    `security_stamp` is the version of the account's credentials (as in ASP.NET Identity). Sessions contain it and links
    sign it, so a new stamp ends them all. An HMAC of the password hash could not end them without a new password, and
    re-hashing at login would end them without need.
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
    registered_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # None: created by a command or an import
    last_login: Mapped[datetime | None] = mapped_column(UTCDateTime)
    cooldown_started_at: Mapped[datetime | None] = mapped_column("mailed_at", UTCDateTime)

    def get_id(self) -> str:
        """Return what Flask-Login keeps in the session: `<id>.<stamp>`, which is invalid once the stamp changes."""
        return f"{self.id}.{self.security_stamp}"

    def check_password(self, password: str) -> bool:
        """Whether this is the account's password; it costs one hash in any case."""
        return check_password(password, self.password_hash)

    def has_usable_password(self) -> bool:
        """Whether the account has a password (Django's name)."""
        return is_password_usable(self.password_hash)


class OutboxMessage(db.Model):  # type: ignore[name-defined]
    """A request for an email, which a worker writes and sends.

    `run_after` combines ready time, lease and retry time: the row is due when it is past, and failed when it is NULL.
    `leased` says whether that time is a worker's lease. The address is the one typed; the email goes to the one stored
    with the account.
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
    """A security event of an account, for its owner and the operator; `kind` is a value of `events.Kind`."""

    __tablename__ = "security_events"
    __table_args__ = (Index(None, "user_id", "created_at"), Index(None, "created_at"), SQLITE_NEVER_REUSES_IDS)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    client_address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(200))


class Counter(db.Model):  # type: ignore[name-defined]
    """How often something happened; `name` is one of `counters.Counted`, `kind` the kind of email or the endpoint."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)


class LoginFailures(db.Model):  # type: ignore[name-defined]
    """How many logins to one account failed from one network, and until when that network has to wait.

    `account` is a keyed hash of the address that was typed. The account may not exist, and the "address" may be a
    password that was typed into the wrong field.
    """

    __tablename__ = "login_failures"
    __table_args__ = (Index(None, "failed_at"),)

    account: Mapped[str] = mapped_column(String(64), primary_key=True)
    network: Mapped[str] = mapped_column(String(45), primary_key=True)
    failures: Mapped[int]
    failed_at: Mapped[datetime] = mapped_column(UTCDateTime)
    wait_until: Mapped[datetime | None] = mapped_column(UTCDateTime)


class RevokedSession(db.Model):  # type: ignore[name-defined]
    """A session that was logged out. Its cookie may have been copied, and its signature stays valid for days."""

    __tablename__ = "ended_sessions"
    __table_args__ = (Index(None, "ended_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    revoked_at: Mapped[datetime] = mapped_column("ended_at", UTCDateTime, default=utcnow)
