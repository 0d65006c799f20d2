"""`flask outbox`: the mail that waits, for operators. Addresses are not printed: a terminal is a log."""

import click
from flask import current_app

from pwreset import events
from pwreset.clock import utcnow
from pwreset.commands import DatabaseGroup
from pwreset.events import Kind
from pwreset.mail import delivery, outbox, worker
from pwreset.serving import log_to_console

group = DatabaseGroup("outbox", help="Mail that waits to be sent.")


@group.command()
def status() -> None:
    """Show how much mail waits, for how long, and what failed for good."""
    for name, number in {**outbox.counts(), "expired": events.count(Kind.EXPIRED)}.items():
        click.echo(f"{name:8}{number}")
    oldest = outbox.oldest_due()
    if oldest:
        click.echo(f"The oldest has been due for {(utcnow() - oldest).total_seconds():.0f} s.")
    for row in outbox.failed():
        click.echo(f"{row.failed_at:%Y-%m-%d %H:%M:%S}  {row.kind} {row.id}: {row.failure}")


@group.command()
def drain() -> None:
    """Deliver what is due, now, and stop."""
    log_to_console()
    total = outbox.counts()["due"]
    done, problem = delivery.deliver_pending(worker.stop_on_signals().is_set)
    click.echo(f"{done} of {max(total, done)} dealt with.")
    if problem:
        msg = f"The rest waits: {problem}."
        raise click.ClickException(msg)


@group.command()
def run() -> None:
    """Deliver until stopped: a worker of its own."""
    log_to_console()
    click.echo("Delivering; Ctrl-C stops.")
    worker.Worker(current_app._get_current_object(), worker.stop_on_signals()).run()  # type: ignore[attr-defined]  # noqa: SLF001


@group.command()
def retry() -> None:
    """Send the mail that failed for good back into the queue."""
    click.echo(f"{outbox.retry()} due again.")
