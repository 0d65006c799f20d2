"""The load test, for locust: `make load` runs it.

It starts a site of its own, lets the visitors come in the first minute, and measures from then on.
"""

import atexit
import time
from contextlib import ExitStack
from typing import Any

import gevent
from locust import events
from locust.env import Environment

from benchmarks.load_report import Run, write
from benchmarks.load_site import load_site
from benchmarks.report import evidence
from benchmarks.visitors import Visitor, emails

__all__ = ["Visitor"]  # locust looks for it here

stack = ExitStack()
atexit.register(stack.close)
memory: list[dict[str, int]] = []
early_errors: dict[str, int] = {}


@events.init.add_listener
def start_site(environment: Environment, **_: object) -> None:
    """Start the site before the first visitor comes."""
    environment.site = stack.enter_context(load_site())
    environment.host = environment.site.url
    gevent.spawn(_collect_emails, environment)


def _collect_emails(environment: Environment) -> None:
    while True:
        emails.receive(environment.site.sink.new_emails())
        gevent.sleep(0.25)


@events.test_start.add_listener
def measure_after_a_minute(environment: Environment, **_: object) -> None:
    """Measure from the moment when all visitors are there."""
    gevent.spawn_later(60, _begin, environment)


def _begin(environment: Environment) -> None:
    memory.append(environment.site.memory())
    early_errors.update(_errors(environment))
    environment.stats.reset_all()


@events.test_stop.add_listener
def report(environment: Environment, **_: object) -> None:
    """Write the figures, and fail if a bound is missed."""
    stats = environment.stats
    site = environment.site
    memory.append(site.memory())
    rows_left = site.rows_left()
    time.sleep(1)  # the last emails are collected
    rows = [_row(entry) for entry in sorted(stats.entries.values(), key=lambda entry: -entry.num_requests)]
    p95 = stats.total.get_response_time_percentile(0.95) or 0
    errors = early_errors | _errors(environment)
    output = evidence("load", "Load", "load")
    write(Run([["all", *_row(stats.total)[1:]], *rows], p95, errors, emails, memory, site.events(), rows_left), output)
    environment.process_exit_code = 1 if output.status() else 0


def _row(entry: Any) -> list[object]:
    percentiles = (f"{entry.get_response_time_percentile(share) or 0:.0f}" for share in (0.5, 0.95, 0.99))
    return [entry.name, entry.num_requests, f"{entry.total_rps:.1f}", *percentiles]


def _errors(environment: Environment) -> dict[str, int]:
    failed = {f"{error.name}: {error.error}": error.occurrences for error in environment.stats.errors.values()}
    return failed | {entry["msg"]: entry["count"] for entry in environment.runner.exceptions.values()}
