"""`flask users`: accounts, for operators.

Only `set-password` changes the password of an existing account; it ends all sessions, and the owner gets an email.
"""

import sys
from types import SimpleNamespace

import click
from flask import current_app

from config import LOCAL_URL
from pwreset import accounts, outbox
from pwreset.accounts import events
from pwreset.accounts.tokens import token_generator
from pwreset.clock import humanize_duration
from pwreset.commands.address import normalized
from pwreset.commands.database_group import DatabaseGroup
from pwreset.extensions import db
from pwreset.models import User
from pwreset.outbox import cooldown, emails
from pwreset.passwords.validation import ValidationError, validate_password
from pwreset.request_info import RequestInfo
from pwreset.web.forms import password_validators

group = DatabaseGroup("users", help="Accounts.")
from_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@group.command()
@click.argument("email", callback=normalized)
@from_stdin
def create(email: str, password_stdin: bool) -> None:  # noqa: FBT001 (click passes it by name)
    """Add an account with a password."""
    user = accounts.create(email, _read_password(email, stdin=password_stdin))
    if user is None:
        raise click.ClickException("There is already an account with this address.")
    events.record(events.Kind.SET_BY_ADMIN, user.id)
    db.session.commit()
    click.echo(f"Created {email}.")


@group.command()
@click.argument("email", callback=normalized)
@from_stdin
def set_password(email: str, password_stdin: bool) -> None:  # noqa: FBT001
    """Set an account's password; ends every session and emails a notice to the owner."""
    address = _find(email).email
    db.session.rollback()  # the database ends a transaction that waits for too long
    password = _read_password(address, stdin=password_stdin)
    user = _find(email)
    if not accounts.set_password(user, password):
        raise click.ClickException("The account is deactivated, or it just changed. Nothing was done.")
    outbox.enqueue(outbox.EmailKind.PASSWORD_CHANGED, user.email, RequestInfo())
    events.record(events.Kind.SET_BY_ADMIN, user.id)
    db.session.commit()
    click.echo("The password is set, every session has ended, and the owner gets an email.")


@group.command()
@click.argument("email", callback=normalized)
def invite(email: str) -> None:
    """Email the registration link to an address."""
    user = accounts.find(email)
    if user and (user.has_usable_password() or not user.is_active):
        msg = "There is already an account with this address." if user.is_active else "The account is deactivated."
        raise click.ClickException(msg)
    outbox.enqueue(outbox.EmailKind.REGISTRATION, email, RequestInfo())
    db.session.commit()
    click.echo("The invitation is in the outbox; the running site sends it, or `flask outbox drain` does.")


@group.command()
@click.argument("email", callback=normalized)
def deactivate(email: str) -> None:
    """Deactivate an account: no login, no email, and every session and link ends."""
    accounts.set_active(_find(email), active=False)
    db.session.commit()
    click.echo("Deactivated. Every session and outstanding link has ended.")


@group.command()
@click.argument("email", callback=normalized)
def activate(email: str) -> None:
    """Activate an account again; no old session, and no old link that sets a password, works again."""
    accounts.set_active(_find(email), active=True)
    db.session.commit()
    click.echo("Activated.")


@group.command()
@click.argument("email", callback=normalized)
def reset_link(email: str) -> None:
    """Print a link that sets a new password, for support when email does not arrive."""
    user = _find(email)
    if not user.is_active:
        raise click.ClickException("The account is deactivated.")
    purpose = "reset" if user.has_usable_password() else "invite"
    link = emails.link_to_page(user, purpose, current_app.config["PUBLIC_URL"] or LOCAL_URL)
    if purpose == "invite":
        cooldown.start(user)  # as after an email: an unfinished account with a valid link is not purged
    events.record(events.Kind.LINK_PRINTED, user.id)
    db.session.commit()
    click.echo(link)
    lifetime = humanize_duration(token_generator(purpose).lifetime)
    click.echo(f"It works once, within {lifetime}. Anyone who has it can set the password.", err=True)


@group.command("events")
@click.argument("email", callback=normalized)
def show_events(email: str) -> None:
    """List the security events of an account, newest first."""
    for entry in events.latest(_find(email), limit=100):
        where = " ".join(filter(None, (entry.client_address, entry.browser)))
        click.echo(f"{entry.created_at:%Y-%m-%d %H:%M:%S}  {entry.description}  {where}".rstrip())


def _find(email: str) -> User:
    user = accounts.find(email)
    if user is None:
        raise click.ClickException("There is no account with this address.")
    return user


def _read_line() -> str:
    try:
        return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.ClickException("The password on standard input is not UTF-8 text.") from None


def _read_password(email: str, *, stdin: bool) -> str:
    password = _read_line() if stdin else click.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        validate_password(password, SimpleNamespace(email=email), password_validators())
    except ValidationError as error:
        raise click.ClickException(" ".join(error.messages)) from None
    return str(password)
