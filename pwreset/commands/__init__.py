"""The commands: `flask users`, `flask mail` and `flask outbox`.

Decides how they fail: one clear line, and exit status 1.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError


class DatabaseGroup(AppGroup):
    """Commands that need the tables; says so in one line where they are missing or out of reach."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], click.Command]:  # type: ignore[override]
        """Add a command to the group."""
        add = super().command(*args, **kwargs)
        return lambda function: add(_with_tables(function))


def init_app(app: Flask) -> None:
    """Add the commands to `flask`."""
    from pwreset.commands import mail, outbox, users  # noqa: PLC0415 (they need DatabaseGroup)

    for group in (users.group, mail.group, outbox.group):
        app.cli.add_command(group)


def _with_tables(function: Callable[..., Any]) -> Callable[..., Any]:
    from pwreset.startup import check_schema  # noqa: PLC0415

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            check_schema(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001
            return function(*args, **kwargs)
        except SQLAlchemyError as error:
            msg = f"The database does not answer ({type(error).__name__}). Check DATABASE_URL."
            raise click.ClickException(msg) from None

    return checked
