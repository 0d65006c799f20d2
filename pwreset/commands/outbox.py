"""`flask outbox`: the mail that waits, for operators. Addresses are not printed: a terminal is a log."""

import click
from flask import current_app

from pwreset import outbox
from pwreset.clock import at_most_every, utcnow
from pwreset.commands.database_group import DatabaseGroup
from pwreset.logs import log_to_console
from pwreset.monitoring import counters, queue_status
from pwreset.monitoring.counters import Counted
from pwreset.outbox import delivery, retention, worker

group = DatabaseGroup("outbox", help="Mail that waits to be sent.")


# What the counters are called here; `/metrics` has them too, split by kind.
TOTALS = {
    Counted.DELIVERED: "delivered",
    Counted.MERGED: "merged",
    Counted.NO_RECIPIENT: "for nobody",
    Counted.RETRIED: "retried",
    Counted.FAILED: "failed",
    Counted.EXPIRED: "expired",
    Counted.COMPLETED: "resets completed",
    Counted.LIMITED: "rate-limited",
}


@group.command()
def status() -> None:
    """Show how much mail waits, for how long, what happened so far, and what failed for good."""
    _print(queue_status.counts())
    oldest = queue_status.oldest_due()
    if oldest:
        click.echo(f"The oldest has been due for {(utcnow() - oldest).total_seconds():.0f} s.")
    if queue_status.is_stalled():
        click.echo(queue_status.STALLED_MESSAGE)
    click.echo("\nSo far:")
    totals = counters.totals()
    _print({"requests": sum(queue_status.requests().values())})
    _print({word: sum(n for (key, _), n in totals.items() if key == name) for name, word in TOTALS.items()})
    failures = queue_status.failed()
    if failures:
        click.echo("\nThe last failures (`flask outbox retry` sends them again):")
    for row in failures:
        click.echo(f"{row.failed_at:%Y-%m-%d %H:%M:%S}  {row.kind} {row.id}: {row.failure}")


def _print(numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        click.echo(f"{name:18}{number}")


@group.command()
def drain() -> None:
    """Deliver what is due, now, delete what is too old, and stop."""
    log_to_console(current_app.config["LOG_FORMAT"])
    total = queue_status.counts()["due"]
    time_to_tell = at_most_every(1)
    time_to_tell()  # not at once: most drains are short

    def tell(done: int) -> None:
        if done < total and time_to_tell():
            click.echo(f"{done} of {total} ...")

    done, problem = delivery.deliver_pending(worker.stop_on_signals().is_set, tell)
    click.echo(f"{done} of {max(total, done)} dealt with.")
    retention.purge()  # where this is all that runs, nobody else does
    if problem:
        msg = f"The rest waits: {problem}."
        raise click.ClickException(msg)


@group.command()
def run() -> None:
    """Deliver until stopped: a worker of its own."""
    log_to_console(current_app.config["LOG_FORMAT"])
    click.echo("Delivering; Ctrl-C stops.")
    worker.Worker(current_app._get_current_object(), worker.stop_on_signals()).run()  # type: ignore[attr-defined]  # noqa: SLF001


@group.command()
def retry() -> None:
    """Send the mail that failed for good back into the queue."""
    click.echo(f"{outbox.retry_failed()} due again.")
