"""`flask outbox`: the mail that waits, for operators. Addresses are not printed: a terminal is a log."""

import click
from flask import current_app

from pwreset import counters
from pwreset.clock import Every, utcnow
from pwreset.commands import DatabaseGroup
from pwreset.counters import Counted
from pwreset.logs import log_to_console
from pwreset.mail import delivery, outbox, retention, statistics, worker

group = DatabaseGroup("outbox", help="Mail that waits to be sent.")


# What the counters are called here; `/metrics` has them too, split by kind.
TOTALS = {
    Counted.DELIVERED: "delivered",
    Counted.MERGED: "merged",
    Counted.UNADDRESSED: "for nobody",
    Counted.RETRIED: "retried",
    Counted.FAILED: "failed",
    Counted.EXPIRED: "expired",
    Counted.COMPLETED: "resets completed",
    Counted.LIMITED: "rate-limited",
}


@group.command()
def status() -> None:
    """Show how much mail waits, for how long, what happened so far, and what failed for good."""
    _print(statistics.counts())
    oldest = statistics.oldest_due()
    if oldest:
        click.echo(f"The oldest has been due for {(utcnow() - oldest).total_seconds():.0f} s.")
    if statistics.nobody_delivers():
        click.echo(statistics.NOBODY_DELIVERS)
    click.echo("\nSo far:")
    totals = counters.totals()
    _print({"requests": sum(statistics.requests().values())})
    _print({word: sum(n for (key, _), n in totals.items() if key == name) for name, word in TOTALS.items()})
    failures = statistics.failed()
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
    total = statistics.counts()["due"]
    time_to_tell = Every(1)
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
    click.echo(f"{outbox.retry()} due again.")
