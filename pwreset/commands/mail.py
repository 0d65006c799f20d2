"""`flask mail check`: checks the mail server step by step, and prints what to do when a step fails."""

import smtplib
from collections.abc import Callable
from typing import TypeVar

import click
from flask import current_app
from flask.cli import AppGroup

from pwreset.commands.address import normalized
from pwreset.mail.errors import MailError
from pwreset.mail.smtp import VerifyingConnection
from pwreset.outbox import emails

T = TypeVar("T")
group = AppGroup("mail", help="The mail server.")


@group.command()
@click.option("--to", "recipient", callback=normalized, metavar="ADDRESS", help="Send a test email there.")
def check(recipient: str | None) -> None:
    """Connect to the mail server, switch to TLS, log in, and send a test email with --to."""
    if current_app.config["EMAIL_HOST"] is None:
        msg = "No mail server is configured, so emails are kept in the local mailbox. Set EMAIL_USER and EMAIL_PASS."
        raise click.ClickException(msg)
    with VerifyingConnection(current_app.extensions["mail"]) as connection:
        _open(connection)
        if recipient:
            _step(connection, "send the test email", lambda: connection.send(emails.test_message(recipient)))
    click.echo("The mail server works." if recipient else "The mail server works. --to ADDRESS sends a test email.")


def _open(connection: VerifyingConnection) -> None:
    server = connection.mail
    with connection.deadline():
        host = _step(connection, f"connect to {server.server}:{server.port}", connection.connect)
        connection.host = host
        if server.use_tls:
            _step(connection, "switch to TLS, and check the certificate", lambda: connection.secure(host))
        if server.username:
            _step(connection, "log in", lambda: connection.login(host))


def _step(connection: VerifyingConnection, name: str, action: Callable[[], T]) -> T:
    click.echo(f"{name} ... ", nl=False)
    try:
        result = action()
    except (smtplib.SMTPException, OSError, ValueError, MailError) as error:
        click.echo("failed")
        reason = str(error) if isinstance(error, MailError) else connection.explain(error)
        raise click.ClickException(reason[0].upper() + reason[1:] + ".") from None
    click.echo("ok")
    return result
