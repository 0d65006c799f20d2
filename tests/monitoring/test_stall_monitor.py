"""The stall monitor: the log and /healthz report email that no worker delivers."""

import threading
from collections.abc import Iterator

import pytest
import time_machine
from flask import Flask

from pwreset.monitoring import stall_monitor
from pwreset.monitoring.queue_status import STALLED_MESSAGE
from tests.support.app import Visitor
from tests.support.clock import NOON, waited_for
from tests.support.outbox import request_email


@pytest.fixture
def watching(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[stall_monitor.StallMonitor]:
    """Return the watch of an application as a server has it; it looks after a moment and not a minute."""
    monkeypatch.setattr(stall_monitor, "PAUSE", 0.05)
    watching = stall_monitor.StallMonitor(app)
    app.after_request(watching.after_request)
    yield watching
    monkeypatch.setattr(watching, "schedule_check", lambda: None)
    assert waited_for(lambda: not timers())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pwreset.monitoring.stall_monitor"]


def test_a_site_whose_email_is_delivered_is_ok(app: Flask) -> None:
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_healthz_reports_stalled_email_and_stays_200(app: Flask, caplog) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        clock.shift(61)
        answers = [app.test_client().get("/healthz") for _ in range(3)]
    assert [(answer.status_code, answer.json) for answer in answers] == [(200, {"status": "mail is not delivered"})] * 3
    assert warnings(caplog) == [STALLED_MESSAGE]


def test_a_form_that_was_posted_is_looked_after_without_anybody_asking(app: Flask, watching, caplog) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        clock.shift(61)
        Visitor(app).request_reset("alice@example.com")
        assert waited_for(lambda: warnings(caplog) == [STALLED_MESSAGE])


def test_a_page_that_is_only_read_sets_no_timer(app: Flask, watching, caplog) -> None:
    app.test_client().get("/password-reset/")
    assert timers() == []


def test_the_stall_monitor_is_silent_and_stops_its_timer_while_a_worker_delivers(
    app: Flask, watching, inbox, caplog
) -> None:
    Visitor(app).request_reset("alice@example.com")
    inbox.deliver()
    assert waited_for(lambda: not timers())
    assert warnings(caplog) == []


def test_a_database_that_is_away_does_not_end_the_watch(app: Flask, watching, database, caplog) -> None:
    database.make_unreachable()
    watching.schedule_check()
    first = watching._timer
    assert waited_for(lambda: watching._timer not in {None, first})
    assert warnings(caplog) == []


def timers() -> list[threading.Thread]:
    """Return the timers of watches that run in this process."""
    running = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    return [timer for timer in running if "StallMonitor" in repr(timer.function)]
