"""Accounts, the outbox, and security events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Not imported from the models, because a migration describes the tables as they were when it was written.
MOMENT = sa.DateTime(timezone=True)
NEVER_REUSE_IDS = {"sqlite_autoincrement": True}


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("email_key", sa.String(640), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("stamp", sa.String(64), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_login", MOMENT),
        sa.Column("mailed_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email_key", name="uq_users_email_key"),
        **NEVER_REUSE_IDS,
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("address", sa.String(320), nullable=False),
        sa.Column("email_key", sa.String(640), nullable=False),
        sa.Column("client_address", sa.String(45)),
        sa.Column("user_agent", sa.String(200)),
        sa.Column("language", sa.String(35)),
        sa.Column("origin", sa.String(300)),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("run_after", MOMENT),
        sa.Column("leased", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failed_at", MOMENT),
        sa.Column("failure", sa.String(200)),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        **NEVER_REUSE_IDS,
    )
    op.create_index("ix_outbox_run_after_id", "outbox", ["run_after", "id"])
    op.create_index("ix_outbox_email_key_id", "outbox", ["email_key", "id"])
    op.create_table(
        "security_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer()),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("client_address", sa.String(45)),
        sa.Column("user_agent", sa.String(200)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_security_events_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_security_events"),
        **NEVER_REUSE_IDS,
    )
    op.create_index("ix_security_events_user_id_created_at", "security_events", ["user_id", "created_at"])
    op.create_index("ix_security_events_created_at", "security_events", ["created_at"])


def downgrade() -> None:
    """Drop them again, with everything in them."""
    for table in ("security_events", "outbox", "users"):
        op.drop_table(table)
