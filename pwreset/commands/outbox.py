"""`flask outbox`: the queue of emails, for operators. It prints no addresses, because output may end up in a log."""

import click
from flask import current_app

from pwreset import outbox
from pwreset.clock import at_most_every, utcnow
from pwreset.commands.database_group import DatabaseGroup
from pwreset.logs import log_to_console
from pwreset.monitoring import counters, queue_status
from pwreset.monitoring.counters import Counted
from pwreset.outbox import delivery, retention, worker

group = DatabaseGroup("outbox", help="Emails that wait to be sent.")


# The labels of the counters. `/metrics` also has the counters, by kind.
TOTALS = {
    Counted.DELIVERED: "delivered",
    Counted.MERGED: "merged",
    Counted.NO_RECIPIENT: "no recipient",
    Counted.RETRIED: "retried",
    Counted.FAILED: "failed",
    Counted.EXPIRED: "expired",
    Counted.COMPLETED: "resets completed",
    Counted.LIMITED: "rate-limited",
}


@group.command()
def status() -> None:
    """Show how many emails wait and how long, what happened so far, and the last failures."""
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
    """Deliver what is due now, delete what is too old, and stop."""
    log_to_console(current_app.config["LOG_FORMAT"])
    total = queue_status.counts()["due"]
    progress_is_due = at_most_every(1)
    progress_is_due()  # show no progress in the first second, because most drains are shorter

    def show_progress(done: int) -> None:
        if done < total and progress_is_due():
            click.echo(f"{done} of {total} ...")

    done, problem = delivery.deliver_pending(worker.stop_on_signals().is_set, show_progress)
    click.echo(f"{done} of {max(total, done)} processed.")
    retention.purge()  # a site may run this command and no worker
    if problem:
        msg = f"The other emails wait: {problem}."
        raise click.ClickException(msg)


@group.command()
def run() -> None:
    """Deliver until stopped, as a separate worker."""
    log_to_console(current_app.config["LOG_FORMAT"])
    click.echo("Delivering; Ctrl-C stops.")
    worker.Worker(current_app._get_current_object(), worker.stop_on_signals()).run()  # type: ignore[attr-defined]  # noqa: SLF001


@group.command()
def retry() -> None:
    """Queue failed emails again."""
    click.echo(f"{outbox.retry_failed()} queued again.")
