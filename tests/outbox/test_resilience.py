"""Mail servers, strangers and races that must not lose, repeat or block emails in the queue."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError

from pwreset import accounts, outbox
from pwreset.accounts import events
from pwreset.accounts.tokens import PasswordResetTokenGenerator
from pwreset.clock import utcnow
from pwreset.extensions import db, mail
from pwreset.mail.errors import explain
from pwreset.models import OutboxMessage, User
from pwreset.outbox import Outcome, Result, delivery, emails, queue
from pwreset.outbox.outcomes import Effect
from tests.support.app import Inbox, MakeApp, add_user
from tests.support.databases import Database
from tests.support.outbox import app_for, deliver, end_waits, event_kinds, merge, request_email, rows, users
from tests.support.pages import text_of
from tests.support.passwords import PASSWORD
from tests.support.scripted_smtp import CLOSE, RST, SILENT, USUAL, ScriptedServer, Step
from tests.support.smtp import SMTPServer, in_turn

RESET, REGISTER = "password_reset", "register"
ALICE, BOB = "alice@example.com", "bob@example.com"


def test_a_server_that_never_acknowledges_can_not_be_made_to_email_without_end(make_app: MakeApp) -> None:
    """Whether an email arrived whose answer is missing, nobody knows: it counts as sent."""
    with ScriptedServer({"DOT": CLOSE}) as server:
        app = app_for(make_app, server)
        alice = add_user(app, ALICE, PASSWORD)
        for _ in range(8):
            request_email(app, ALICE, RESET)
        deliver(app)
        assert len(server.received) == 1
    assert event_kinds(app, alice).count("mailed") == 1
    assert rows(app)[0].attempts == 1


@pytest.mark.parametrize(
    "answer",
    [Step("25", then="abort"), Step("5", then="abort"), "no reply of SMTP", "99 Taken", "600 Taken"],
    ids=["cut 25", "cut 5", "text", "99", "600"],
)
def test_a_malformed_reply_leaves_the_email_unsure_and_the_connection_unused(answer, make_app: MakeApp) -> None:
    """It may have been a 250, and what comes after it would answer other questions."""
    with ScriptedServer({"DOT": [answer, USUAL]}) as server:
        app = app_for(make_app, server)
        alice = add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        request_email(app, BOB)
        assert deliver(app) == (2, None)
        assert server.connections == 2
    assert event_kinds(app, alice).count("mailed") == 1
    assert [(row.attempts, row.failure) for row in rows(app)] == [(1, "the mail server's reply was not valid")]


def test_a_connection_that_is_reset_is_explained_in_plain_words(make_app: MakeApp) -> None:
    """It shows in reading or in writing, as it happens."""
    with ScriptedServer({"CONNECT": RST}) as server:
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (0, "the mail server closed the connection")
    assert explain(ConnectionResetError(104, "Connection reset by peer")) == "the mail server closed the connection"


def test_an_email_that_was_certainly_not_accepted_releases_the_cooldown_slot(make_app: MakeApp) -> None:
    with ScriptedServer({"DATA": CLOSE}) as server:
        app = app_for(make_app, server)
        alice = add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        deliver(app)
        assert server.received == []
    assert "mailed" not in event_kinds(app, alice)


def test_strangers_who_register_an_address_do_not_use_up_its_owners_resets(app: Flask, inbox: Inbox) -> None:
    add_user(app, ALICE, PASSWORD)
    with time_machine.travel("2030-01-01T12:00:00Z", tick=False) as clock:
        for _ in range(6):
            request_email(app, ALICE, REGISTER)
            deliver(app)
            clock.shift(61)
        assert len(inbox.emails()) == 5
        request_email(app, ALICE, RESET)
        deliver(app)
        assert "set a new password" in text_of(inbox.emails()[-1])
        assert inbox.emails()[-1]["Subject"] == "Reset your password at localhost"


@pytest.mark.parametrize("misbehaviour", [CLOSE, SILENT], ids=["hangs_up", "silent"])
def test_an_email_with_a_sender_of_its_own_that_the_server_dies_of_blocks_nobody(
    misbehaviour, make_app: MakeApp
) -> None:
    with ScriptedServer({"MAIL": [misbehaviour, "250 OK"]}) as server:
        app = app_for(make_app, server)
        request_email(app, ALICE, from_email="odd@example.net")
        request_email(app, BOB)
        assert deliver(app) == (2, None)
        assert len(server.received) == 1
    assert [(row.address, row.attempts) for row in rows(app)] == [(ALICE, 1)]


def test_a_request_that_merges_into_an_expiring_row_saves_it(app: Flask, inbox: Inbox) -> None:
    """One worker judges a row too old; before it deletes it, a new request has merged into it."""
    add_user(app, ALICE, PASSWORD)
    request_email(app, ALICE, RESET)
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        row.created_at = utcnow() - timedelta(hours=25)  # as this worker read it; the database says: just now
        assert row.created_at < utcnow() - timedelta(hours=24)
        delivery._deliver(row, mail.connect())
    assert event_kinds(app) == []
    deliver(app)
    assert len(inbox.emails()) == 1


def test_a_request_does_not_merge_into_an_email_that_is_being_sent(app: Flask) -> None:
    """Its link may be dead by then: the account changed between writing it and the new request."""
    add_user(app, ALICE, PASSWORD)
    request_email(app, ALICE, RESET)
    request_email(app, ALICE, RESET)
    with app.app_context():
        first, second = outbox.claim(), outbox.claim()
        assert first is not None
        assert second is not None
        assert not merge(second, utcnow())
    assert len(rows(app)) == 2


def test_a_row_whose_lease_ran_out_is_released_when_it_is_deferred(app: Flask) -> None:
    request_email(app, ALICE, RESET)
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        assert rows(app)[0].leased
        outbox.settle(row, Outcome(Result.DEFERRED, until=utcnow() + timedelta(minutes=1)))
    assert not rows(app)[0].leased


def test_an_account_deleted_during_the_send_leaves_no_second_email(make_app: MakeApp, monkeypatch) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
        add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        write = emails.write

        def write_and_delete(row, draft):
            message = write(row, draft)
            db.session.execute(delete(User))
            return message

        monkeypatch.setattr("pwreset.outbox.delivery.emails.write", write_and_delete)
        deliver(app)
        end_waits(app)
        deliver(app)
        assert len(server.messages) == 1
    assert rows(app) == []


def test_a_row_whose_template_raises_a_database_error_fails(app: Flask, inbox: Inbox, monkeypatch) -> None:
    from sqlalchemy.orm.exc import DetachedInstanceError

    def fail(_row, _draft):
        raise DetachedInstanceError

    monkeypatch.setattr("pwreset.outbox.delivery.emails.write", fail)
    request_email(app, ALICE)
    deliver(app)
    assert [row.failure for row in rows(app)] == ["the email could not be written (DetachedInstanceError)"]


def test_what_a_teams_token_generator_writes_is_kept(make_app: MakeApp) -> None:
    class Recording(PasswordResetTokenGenerator):
        def make_token(self, user: User) -> str:
            events.record(events.Kind.LINK_PRINTED, user.id)
            return super().make_token(user)

    app = make_app(token_generator=Recording())
    add_user(app, ALICE, PASSWORD)
    request_email(app, ALICE, "password_reset")
    deliver(app)
    assert event_kinds(app) == ["link_printed", "requested", "mailed"]


def test_a_mailbox_that_can_not_be_written_loses_no_email(app: Flask, inbox: Inbox) -> None:
    add_user(app, ALICE, PASSWORD)
    request_email(app, ALICE, RESET)
    folder = Path(app.instance_path) / "mailbox"
    folder.write_text("a file where the folder should be")
    assert deliver(app) == (0, "the mailbox can't be written to (File exists)")
    assert users(app)[0].cooldown_started_at is None
    folder.unlink()
    deliver(app)
    assert len(inbox.emails()) == 1


def test_an_account_that_waits_for_its_link_is_not_purged(app: Flask) -> None:
    with time_machine.travel("2030-01-01T12:00:00Z", tick=False) as clock:
        add_user(app, ALICE, None, registered=True)
        clock.shift(timedelta(days=8))
        request_email(app, ALICE, RESET)
        with app.app_context():
            assert accounts.purge_unfinished() == 0


def test_an_account_whose_link_was_printed_is_not_purged(app: Flask) -> None:
    with time_machine.travel("2030-01-01T12:00:00Z", tick=False) as clock:
        add_user(app, ALICE, None, registered=True)
        clock.shift(timedelta(days=8))
        assert app.test_cli_runner().invoke(args=["users", "reset-link", ALICE]).exit_code == 0
        with app.app_context():
            assert accounts.purge_unfinished() == 0


def test_what_expired_is_counted_and_recorded_for_the_owner(app: Flask, inbox: Inbox) -> None:
    with time_machine.travel("2030-01-01T12:00:00Z", tick=False) as clock:
        alice = add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        clock.shift(timedelta(hours=25))
        deliver(app)
    assert event_kinds(app, alice) == ["expired"]
    assert "expired           1\n" in app.test_cli_runner().invoke(args=["outbox", "status"]).output


# --- what a sent email may not bring


def test_requests_for_a_mailbox_that_was_full_merge_when_it_is_not(make_app: MakeApp) -> None:
    """They failed one by one and released the cooldown slot, and must not be emailed one by one."""
    with SMTPServer(rcpt_reply=in_turn(*["452 4.2.2 Mailbox full"] * 8)) as server:
        app = app_for(make_app, server)
        add_user(app, ALICE, PASSWORD)
        for _ in range(8):
            request_email(app, ALICE, RESET)
        deliver(app)
        assert [row.attempts for row in rows(app)] == [1] * 8
        for _ in range(3):
            end_waits(app)
            deliver(app)
        assert (len(server.messages), len(rows(app))) == (1, 1)  # and one waits for the next cooldown slot


def test_events_that_can_not_be_written_bring_no_second_copy(
    make_app: MakeApp, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as after a restore that forgot a right: without an end to it, an email a minute."""
    monkeypatch.setattr(queue, "_record", failing_with_an_account(queue._record))
    with SMTPServer() as server:
        app = app_for(make_app, server, OUTBOX_LEASE_SECONDS="1.1", EMAIL_DEADLINE="1", EMAIL_TIMEOUT="1")
        add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        assert deliver(app) == (1, None)
        assert rows(app) == []
        assert len(server.messages) == 1


def test_an_answer_to_the_commit_that_is_lost_leaves_one_event(make_app: MakeApp, monkeypatch) -> None:
    """Or an email would count twice among the five an hour."""
    settle, lost = outbox.settle, in_turn("lost")

    def settle_and_lose_the_answer(*arguments) -> None:
        settle(*arguments)
        if lost():
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(outbox, "settle", settle_and_lose_the_answer)
    with SMTPServer() as server:
        app = app_for(make_app, server)
        alice = add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1
    assert event_kinds(app, alice) == ["requested", "mailed"]


def failing_with_an_account(record: Callable[..., None]) -> Callable[..., None]:
    def fail(row: OutboxMessage, outcome: Outcome, effect: Effect) -> None:
        record(row, outcome, effect)
        if outcome.user_id:
            raise OperationalError("INSERT", {}, Exception("permission denied for table security_events"))

    return fail


def test_a_database_that_is_away_for_longer_than_a_lease_brings_no_second_copy(
    make_app: MakeApp, database: Database
) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server, OUTBOX_LEASE_SECONDS="1.1", EMAIL_DEADLINE="1", EMAIL_TIMEOUT="1")
        add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        server.data_reply = lambda: database.query("ALTER TABLE outbox RENAME TO hidden") and None
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(deliver, app)
            server.wait_for(1)
            time.sleep(2)
            assert not job.done()
            database.query("ALTER TABLE hidden RENAME TO outbox")
            assert job.result() == (1, None)
        assert rows(app) == []
        assert len(server.messages) == 1


@pytest.mark.parametrize("reply", ["251 2.0.0 Taken", "200 Taken"])
def test_every_yes_to_an_email_is_a_yes(reply: str, make_app: MakeApp) -> None:
    with ScriptedServer({"DOT": reply}) as server:
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (1, None)
        assert rows(app) == []
        assert len(server.received) == 1


def test_an_answer_without_end_is_no_refusal(make_app: MakeApp) -> None:
    with ScriptedServer({"DOT": "250 " + "x" * 9000}) as server:
        app = app_for(make_app, server)
        request_email(app)
        deliver(app)
    assert [(row.attempts, row.failed_at, row.failure) for row in rows(app)] == [
        (1, None, "the mail server's reply was not valid")
    ]


# --- what is the server's failure, also where an email has a sender of its own


def test_a_server_that_closes_the_connection_at_ehlo_charges_no_email(make_app: MakeApp) -> None:
    with ScriptedServer({"EHLO": [CLOSE, CLOSE, USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app, from_email="elsewhere@example.com")
        assert deliver(app)[0] == 0
        assert [row.attempts for row in rows(app)] == [0]
        assert deliver(app)[0] == 0
        assert deliver(app) == (1, None)


def test_an_idle_connection_that_was_closed_charges_no_email(make_app: MakeApp) -> None:
    with ScriptedServer({"MAIL": [USUAL, CLOSE, USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app)
        request_email(app, BOB, from_email="elsewhere@example.com")
        assert deliver(app) == (2, None)
        assert rows(app) == []
        assert len(server.received) == 2


# --- a server that does not even answer


@contextmanager
def deaf() -> Iterator[int]:
    """Give a port whose queue is full: the kernel answers nobody, as for a machine that is gone."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def test_a_machine_that_does_not_answer_is_abandoned_in_time(make_app: MakeApp) -> None:
    with deaf() as port:
        app = make_app(EMAIL_HOST="localhost", EMAIL_PORT=port, EMAIL_FROM="accounts@example.com", EMAIL_TIMEOUT="0.5")
        request_email(app)
        start = time.monotonic()
        done, problem = deliver(app)
    assert time.monotonic() - start < 3
    assert (done, problem) == (0, explain(TimeoutError()))
    assert [row.attempts for row in rows(app)] == [0]


def test_many_addresses_of_a_server_that_does_not_answer_are_abandoned_at_the_deadline(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *of, **how: found(*of, **how)[:1] * 20)
    with deaf() as port:
        app = make_app(
            EMAIL_HOST="localhost",
            EMAIL_PORT=port,
            EMAIL_FROM="accounts@example.com",
            EMAIL_TIMEOUT="0.4",
            EMAIL_DEADLINE="1",
        )
        request_email(app)
        start = time.monotonic()
        done, problem = deliver(app)
    assert time.monotonic() - start < 3
    assert done == 0
    assert problem
