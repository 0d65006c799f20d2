"""A group of commands that need the tables.

Responsible for how they fail: one clear line, and exit status 1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from pwreset.database import check_schema
from pwreset.extensions import db


class DatabaseGroup(AppGroup):
    """Commands that end with one line where the tables are missing or the database does not answer."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], click.Command]:  # type: ignore[override]
        """Add a command to the group."""
        add = super().command(*args, **kwargs)
        return lambda function: add(database_required()(function))


@contextmanager
def database_required() -> Iterator[None]:
    """Check the tables, and end with one line if the database does not answer, now or inside the block."""
    try:
        check_schema(db.engine)
        yield
    except SQLAlchemyError as error:
        msg = f"The database does not answer ({type(error).__name__}). Check DATABASE_URL."
        raise click.ClickException(msg) from None
