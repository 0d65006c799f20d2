"""`flask outbox` shows and delivers what waits, without an address on the terminal."""

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from click.testing import Result as CommandResult
from flask import Flask

from pwreset import outbox
from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.commands import outbox as commands
from pwreset.extensions import db
from pwreset.outbox import Outcome, Result
from tests.support.app import Inbox, MakeApp
from tests.support.databases import Database
from tests.support.outbox import app_for, assert_uncharged, request_email, rows
from tests.support.smtp import SMTPServer, in_turn

NOW = datetime(2030, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("signals_restored")


def run(app: Flask, *arguments: str) -> CommandResult:
    result = app.test_cli_runner().invoke(args=["outbox", *arguments])
    assert "@" not in result.output
    assert "alice" not in result.output
    return result


def give_up_one(app: Flask) -> None:
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        outbox.settle(row, Outcome(Result.FAILED, reason="the mail server refused the recipient (550)"))


STATES = ["due", "waiting", "failed"]
TOTALS = [
    "requests",
    "delivered",
    "merged",
    "no recipient",
    "retried",
    "failed",
    "expired",
    "resets completed",
    "rate-limited",
]


def test_the_status_of_an_empty_outbox_is_all_zeros(app: Flask) -> None:
    result = run(app, "status")
    lines = [f"{word:18}0" for word in [*STATES, *TOTALS]]
    assert (result.exit_code, result.output.splitlines()) == (0, [*lines[:3], "", "So far:", *lines[3:]])


def test_the_status_tells_what_waits_for_how_long_and_what_failed(app: Flask) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        for _ in range(4):
            request_email(app)
        give_up_one(app)
        with app.app_context():
            row = outbox.claim()
            assert row is not None
            outbox.settle(row, Outcome(Result.DEFERRED, until=NOW + timedelta(hours=1)))
        clock.shift(90)
        result = run(app, "status")
    lines = result.output.splitlines()
    assert [line.split() for line in lines[:3]] == [["due", "2"], ["waiting", "1"], ["failed", "1"]]
    assert lines[3] == "The oldest has been due for 90 s."
    assert lines[4].startswith("Email has been due for more than a minute, and no worker delivers it.")
    assert lines[6:8] == ["So far:", "requests          4"]
    assert lines[-2] == "The last failures (`flask outbox retry` sends them again):"
    assert lines[-1] == "2030-01-01 00:00:00  password_changed 1: the mail server refused the recipient (550)"
    assert result.exit_code == 0


def test_the_status_of_a_refused_email_names_no_address(make_app: MakeApp) -> None:
    with SMTPServer(rcpt_reply="550 5.1.1 alice@example.com is unknown") as server:
        app = app_for(make_app, server)
        request_email(app)
        run(app, "drain")
    result = run(app, "status")
    assert "password_changed 1: the mail server refused the recipient (550)" in result.output


def test_a_drain_delivers_what_is_due_and_stops(app: Flask, inbox: Inbox) -> None:
    for _ in range(3):
        request_email(app)
    result = run(app, "drain")
    assert (result.exit_code, result.output) == (0, "3 of 3 processed.\n")
    assert len(inbox.emails()) == 3
    assert rows(app) == []


def test_a_drain_tells_how_far_it_is(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "at_most_every", lambda _seconds: lambda: True)  # and not once a second
    for _ in range(3):
        request_email(app)
    result = run(app, "drain")
    assert result.output.splitlines() == ["1 of 3 ...", "2 of 3 ...", "3 of 3 processed."]


def test_a_drain_deletes_what_is_too_old(app: Flask, alice: int) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        with app.app_context():
            events.record(Kind.LOGGED_IN, alice)
            db.session.commit()
        clock.shift(timedelta(days=91))
        run(app, "drain")
        with app.app_context():
            assert events.count(Kind.LOGGED_IN) == 0


def test_a_drain_of_nothing_is_no_failure(app: Flask) -> None:
    result = run(app, "drain")
    assert (result.exit_code, result.output) == (0, "0 of 0 processed.\n")


def test_a_drain_that_fails_half_way_says_how_far_it_came_and_why(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn(None, *["421 4.3.2 Closing"] * 5)) as server:
        app = app_for(make_app, server)
        for _ in range(3):
            request_email(app)
        result = run(app, "drain")
        assert len(server.messages) == 1
    assert result.exit_code == 1
    done, why = result.output.splitlines()
    assert done == "1 of 3 processed."
    assert why.startswith("Error: The other emails wait: the mail server is closing for now (421)")
    assert_uncharged(app, 2)


def test_a_drain_leaves_what_is_not_due(app: Flask) -> None:
    request_email(app)
    with app.app_context():
        outbox.claim()
    result = run(app, "drain")
    assert (result.exit_code, result.output) == (0, "0 of 0 processed.\n")
    assert len(rows(app)) == 1


def test_a_retry_sends_failed_email_back_into_the_queue(app: Flask, inbox: Inbox) -> None:
    request_email(app)
    give_up_one(app)
    result = run(app, "retry")
    assert (result.exit_code, result.output) == (0, "1 queued again.\n")
    run(app, "drain")
    assert len(inbox.emails()) == 1
    assert run(app, "retry").output == "0 queued again.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_delivers_until_it_is_stopped(number: signal.Signals, make_app: MakeApp) -> None:
    app = make_app(OUTBOX_POLL_SECONDS=0.05)
    before = signal.getsignal(number)
    request_email(app)

    def stop_when_delivered() -> None:
        end = time.monotonic() + 10
        while (rows(app) or signal.getsignal(number) is before) and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    stopper = threading.Thread(target=stop_when_delivered)
    stopper.start()
    result = run(app, "run")
    stopper.join()
    assert (result.exit_code, result.output) == (0, "Delivering; Ctrl-C stops.\n")
    assert rows(app) == []


@pytest.mark.parametrize("command", ["status", "drain", "retry", "run"])
def test_a_database_without_tables_is_reported_in_one_line(
    command: str, make_app: MakeApp, empty_database: Database
) -> None:
    app = make_app(**empty_database.settings)
    result = run(app, command)
    assert result.exit_code == 1
    assert result.output == "Error: The database has no tables yet. Run: flask db upgrade\n"


@pytest.mark.parametrize("command", ["status", "drain", "retry", "run"])
def test_a_database_out_of_reach_is_reported_in_one_line(command: str, make_app: MakeApp, nowhere: str) -> None:
    app = make_app(DATABASE_URL=nowhere)
    result = run(app, command)
    assert result.exit_code == 1
    assert result.output == "Error: The database does not answer (OperationalError). Check DATABASE_URL.\n"


def test_an_unknown_command_is_bad_usage(app: Flask) -> None:
    assert run(app, "empty").exit_code == 2
