"""The time at which an account registered here; only such accounts are purged."""

from datetime import timedelta

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
# An account and the event of its registration are written within one attempt to send the invitation.
ONE_ATTEMPT = timedelta(minutes=2)
users = sa.table(
    "users",
    sa.column("id", sa.Integer),
    sa.column("password_hash", sa.String),
    sa.column("created_at", MOMENT),
    sa.column("last_login", MOMENT),
    sa.column("registered_at", MOMENT),
)
events = sa.table(
    "security_events",
    sa.column("user_id", sa.Integer),
    sa.column("kind", sa.String),
    sa.column("created_at", MOMENT),
)


def upgrade() -> None:
    """Add the column, and fill it for accounts that registered here and have no password yet.

    Anyone can cause this event for an imported account, so it only counts if it follows right after the creation.
    """
    op.add_column("users", sa.Column("registered_at", MOMENT))
    unfinished = sa.and_(users.c.password_hash.startswith("!"), users.c.last_login.is_(None))
    found = (
        sa.select(users.c.id, users.c.created_at, sa.func.min(events.c.created_at, type_=MOMENT))
        .join(events, sa.and_(events.c.user_id == users.c.id, events.c.kind == "registered"))
        .where(unfinished)
        .group_by(users.c.id, users.c.created_at)
    )
    connection = op.get_bind()
    for user_id, created_at, event_at in connection.execute(found).all():
        if timedelta(0) <= event_at - created_at <= ONE_ATTEMPT:
            connection.execute(users.update().where(users.c.id == user_id).values(registered_at=created_at))


def downgrade() -> None:
    """Drop the column: older code purges every account without a password again."""
    op.drop_column("users", "registered_at")
