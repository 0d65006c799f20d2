"""The commands: `flask users`, `flask mail` and `flask outbox`."""

from flask import Flask

from pwreset.commands import mail, outbox, users


def init_app(app: Flask) -> None:
    """Add the commands to `flask`."""
    for group in (users.group, mail.group, outbox.group):
        app.cli.add_command(group)
