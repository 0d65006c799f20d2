"""`flask mail check`: try the mail server step by step, and say what to do when a step fails."""

import smtplib
from collections.abc import Callable
from typing import TypeVar

import click
from flask import current_app
from flask.cli import AppGroup

from pwreset.addresses import AddressError, normalize
from pwreset.mail.client import SMTPClient
from pwreset.mail.errors import MailError
from pwreset.mail.smtp import VerifyingConnection
from pwreset.outbox import emails

T = TypeVar("T")
group = AppGroup("mail", help="The mail server.")


@group.command()
@click.option("--to", "address", metavar="ADDRESS", help="Send a test email there.")
def check(address: str | None) -> None:
    """Connect to the mail server, switch to TLS, log in, and send a test email with --to."""
    recipient = _normalized(address) if address else None
    if current_app.config["EMAIL_HOST"] is None:
        msg = "No mail server is set, so emails are kept in the local mailbox. Set EMAIL_USER and EMAIL_PASS."
        raise click.ClickException(msg)
    with VerifyingConnection(current_app.extensions["mail"]) as connection:
        _open(connection)
        if recipient:
            _step(connection, "send the test email", lambda: connection.send(emails.trial_message(recipient)))
    click.echo("The mail server works." if recipient else "The mail server works. --to ADDRESS sends a test email.")


def _open(connection: VerifyingConnection) -> None:
    with connection.deadline():
        host = connection.host = _step(connection, f"connect to {_server()}", connection.connect)
        _secure_and_log_in(connection, host)


def _secure_and_log_in(connection: VerifyingConnection, host: SMTPClient) -> None:
    if connection.mail.use_tls:
        _step(connection, "switch to TLS, and check the certificate", lambda: connection.secure(host))
    if connection.mail.username:
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


def _server() -> str:
    return f"{current_app.config['EMAIL_HOST']}:{current_app.config['EMAIL_PORT']}"


def _normalized(address: str) -> str:
    try:
        return normalize(address)
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="--to") from None
