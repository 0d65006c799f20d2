"""The application's tables, read beside the processes that use them, on either engine.

It also decides what a test may change there: it adds accounts and makes waiting rows due.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqlalchemy import Executable, Row, create_engine, func, select, update

from pwreset.database import prepare
from pwreset.models import Counter, OutboxMessage, SecurityEvent, User
from pwreset.passwords.hashing import make_password
from tests.support.databases import Database
from tests.support.passwords import PASSWORD

users, outbox, events, counters = (model.__table__ for model in (User, OutboxMessage, SecurityEvent, Counter))


class Tables:
    """The tables of one database.

    Args:
        database: whose.
        folder: the instance folder, where SQLite's file lies.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        url = database.settings.get("DATABASE_URL", f"sqlite:///{folder}/pwreset.db")
        self.engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), pool_pre_ping=True)
        prepare(self.engine)

    def run(self, statement: Executable) -> Sequence[Row[Any]]:
        """Run one statement, commit, and return its rows."""
        with self.engine.begin() as connection:
            result = connection.execute(statement)
            return result.all() if result.returns_rows else []

    def add_accounts(self, addresses: Sequence[str]) -> None:
        """Add accounts, all with PASSWORD."""
        people = [
            {"email": address, "email_key": address, "password_hash": _hash(), "stamp": token_hex()}
            for address in addresses
        ]
        self.run(users.insert().values(people))

    def rows(self) -> Sequence[Row[Any]]:
        """Return what is in the outbox, oldest first."""
        return self.run(select(outbox).order_by(outbox.c.id))

    def waiting(self) -> list[Row[Any]]:
        """Return what will be tried, or tried again."""
        return [row for row in self.rows() if row.run_after is not None]

    def charged(self) -> list[Row[Any]]:
        """Return what has failed, and waits for its next try."""
        return [row for row in self.waiting() if row.attempts]

    def dead(self) -> list[Row[Any]]:
        """Return what failed for good."""
        return [row for row in self.rows() if row.run_after is None]

    def count_events(self) -> dict[tuple[str | None, str], int]:
        """Return how many events there are of each address (None: of no account) and kind."""
        query = select(users.c.email, events.c.kind, func.count()).select_from(events.outerjoin(users))
        return {(email, kind): number for email, kind, number in self.run(query.group_by(users.c.email, events.c.kind))}

    def last_events(self, kind: str) -> dict[str, float]:
        """Return when the last event of a kind was, by address, in seconds of the wall clock."""
        query = select(users.c.email, func.max(events.c.created_at)).join(users).where(events.c.kind == kind)
        return {email: moment.timestamp() for email, moment in self.run(query.group_by(users.c.email))}

    def counted(self, kind: str = "password_reset") -> dict[str, int]:
        """Return the application's own counters of one kind of mail."""
        return {row.name: row.value for row in self.run(select(counters).where(counters.c.kind == kind))}

    def everything_is_deferred(self) -> bool:
        """Whether everything that waits is left alone until later: nothing is due, nothing under a lease."""
        return all(not row.leased and row.run_after > datetime.now(UTC) for row in self.waiting())

    def assert_nothing_waits_too_long(self) -> None:
        """A deferred row waits no longer than the cooldown, or than the retry time that it was charged with."""
        for row in self.waiting():
            longest = timedelta(seconds=max(60, 15 * 2**row.attempts))
            left = row.run_after - datetime.now(UTC)
            assert row.leased or left <= longest, f"row {row.id}, tried {row.attempts} times, waits for {left}"

    def let_time_pass(self) -> None:
        """Make deferred and retried rows due, as if the time had passed; leases stay."""
        deferred = outbox.c.run_after.is_not(None), outbox.c.leased.is_(False)
        self.run(update(users).values(mailed_at=None))
        self.run(update(outbox).where(*deferred).values(run_after=outbox.c.created_at))


@cache
def _hash() -> str:
    return make_password(PASSWORD)
