"""How emails reach a mail server, and which of its replies fail a row and which the server."""

import logging
from datetime import UTC, datetime

import pytest
import time_machine
from flask import Flask
from flask_mail import email_dispatched

from pwreset.outbox import emails
from tests.support.app import MakeApp
from tests.support.certificates import Authority
from tests.support.databases import on_sqlite
from tests.support.outbox import (
    LOGIN,
    NOTICE,
    SECURE,
    addresses_of,
    app_for,
    assert_delivered,
    assert_uncharged,
    deliver,
    end_waits,
    event_kinds,
    request_email,
    rows,
)
from tests.support.scripted_smtp import CLOSE, USUAL, ScriptedServer, Step
from tests.support.smtp import SMTPServer, in_turn

pytestmark = [on_sqlite, pytest.mark.usefixtures("no_socket_left")]  # both databases send the same


def test_five_emails_go_over_one_connection(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        for number in range(5):
            request_email(app, f"user{number}@example.com")
        assert deliver(app) == (5, None)
        assert (server.connections, server.logins, len(server.messages)) == (1, 1, 5)


@pytest.mark.parametrize(
    "script",
    [
        {"DOT": [Step(then="close"), USUAL]},
        {"MAIL": [USUAL, "421 4.4.2 You were idle", USUAL]},
        {"MAIL": [USUAL, CLOSE, USUAL]},
    ],
)
def test_a_connection_that_was_closed_between_two_emails_is_opened_again(
    script: dict[str, list[str | Step]], make_app: MakeApp
) -> None:
    with ScriptedServer(script) as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert_delivered(app, server, 2)
        assert server.connections == 2


def test_a_connection_that_closes_again_and_again_is_opened_once_more_only(make_app: MakeApp) -> None:
    with ScriptedServer({"MAIL": [USUAL, CLOSE]}) as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com")
        done, problem = deliver(app)
        assert server.connections == 2
    assert done == 1
    assert problem == "the mail server closed the connection"
    assert_uncharged(app)


# Whose failure it is


def test_a_refused_sender_stops_the_pass_and_charges_nobody(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply="550 5.7.1 Not you") as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com")
        done, problem = deliver(app)
        assert server.connections == 1
    assert done == 0
    assert "EMAIL_FROM" in str(problem)
    assert_uncharged(app, 2)


def test_a_refused_sender_of_a_rows_own_is_the_rows_failure(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn("550 5.7.1 Not you")) as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com", from_email="team@example.org")
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        [record] = server.wait_for(1)
    assert record.rcpt_tos == ["bob@example.com"]
    [row] = rows(app)
    assert (row.address, row.run_after) == ("alice@example.com", None)
    assert "(550)" in str(row.failure)


def test_a_sender_of_a_rows_own_refused_for_now_waits(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn("451 4.3.0 Later")) as server:
        app = app_for(make_app, server)
        request_email(app, from_email="team@example.org")
        assert deliver(app) == (1, None)
        assert rows(app)[0].attempts == 1
        end_waits(app)
        deliver(app)
        [record] = server.wait_for(1)
    assert record.mail_from == "team@example.org"


def test_a_recipient_refused_for_now_is_tried_again_after_30_s_doubling_to_an_hour(make_app: MakeApp) -> None:
    waits = []
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with SMTPServer(rcpt_reply="450 4.2.1 Try later") as server:
        app = app_for(make_app, server)
        with time_machine.travel(now, tick=False) as clock:
            request_email(app)
            for attempt in range(1, 11):
                assert deliver(app) == (1, None)
                [row] = rows(app)
                assert row.attempts == attempt
                assert "(450)" in str(row.failure)
                assert row.run_after is not None
                waits.append((row.run_after - datetime.now(UTC)).total_seconds())
                clock.shift(waits[-1] - 1)
                assert deliver(app) == (0, None)
                clock.shift(1)
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


@pytest.mark.parametrize(
    ("option", "reply"), [("rcpt_reply", "550 5.1.1 Nobody here"), ("data_reply", "554 5.7.1 Looks like spam")]
)
def test_an_email_refused_for_good_is_dead_at_once_and_the_others_go_on(
    option: str, reply: str, make_app: MakeApp
) -> None:
    with SMTPServer(**{option: in_turn(None, reply)}) as server:  # type: ignore[arg-type]
        app = app_for(make_app, server)
        for name in ("alice", "bob", "carol"):
            request_email(app, f"{name}@example.com")
        assert deliver(app) == (3, None)
        assert [record.rcpt_tos for record in server.messages] == [["alice@example.com"], ["carol@example.com"]]
        assert server.connections == 1
    [row] = rows(app)
    assert (row.address, row.run_after, row.attempts) == ("bob@example.com", None, 0)
    assert row.failed_at is not None
    assert f"({reply[:3]})" in str(row.failure)
    assert event_kinds(app) == ["refused"]


@pytest.mark.parametrize("reply", ["421 4.7.0 Slow down", "452 4.5.3 Too many"])
def test_a_connection_closed_over_one_recipient_costs_the_others_nothing(reply: str, make_app: MakeApp) -> None:
    with ScriptedServer({"RCPT": [reply, USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert len(server.received) == 1
    [row] = rows(app)
    assert (row.address, row.attempts) == ("alice@example.com", 1)


def test_an_email_rejected_before_its_text_leaves_the_connection_usable_for_the_next(make_app: MakeApp) -> None:
    # Without RSET a server answers the next MAIL with 503, which a row with a sender of its own would take to heart.
    with ScriptedServer({"DATA": ["554 5.5.1 No valid recipients", USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com", from_email="team@example.org")
        assert deliver(app) == (2, None)
        second = server.commands.index("MAIL", server.commands.index("DATA"))
        between = server.commands[server.commands.index("DATA") : second]
        assert "RSET" in between or server.connections == 2
    assert addresses_of(app) == ["alice@example.com"]


@pytest.mark.parametrize("option", ["rcpt_reply", "data_reply"])
def test_an_account_that_sent_enough_for_today_loses_nothing(option: str, make_app: MakeApp) -> None:
    limit = "550 5.4.5 Daily user sending limit exceeded"
    with SMTPServer(**{option: in_turn(limit)}) as server:  # type: ignore[arg-type]
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (1, None)
        [row] = rows(app)
        assert (row.attempts, row.failed_at) == (1, None)
        assert "sending limit" in str(row.failure)
        end_waits(app)
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1
    assert rows(app) == []


def test_an_email_too_large_at_email_blocks_nobody(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn("552 5.3.4 Message too big")) as server:
        app = app_for(make_app, server)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert [record.rcpt_tos for record in server.messages] == [["bob@example.com"]]
    assert rows(app)[0].failed_at is not None


def test_a_receiver_of_flask_mail_s_signal_that_fails_makes_no_email_look_unsent(make_app: MakeApp) -> None:
    def fail(_app: Flask, message: emails.Message) -> None:
        raise RuntimeError(message.body)

    with SMTPServer() as server, email_dispatched.connected_to(fail):
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1
    assert rows(app) == []


@pytest.mark.parametrize("stage", ["BODY", "DOT"])
def test_an_email_interrupted_in_the_middle_is_sent_again_with_the_same_message_id(
    stage: str, make_app: MakeApp
) -> None:
    with ScriptedServer({stage: [CLOSE, USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (1, None)
        [row] = rows(app)
        assert row.attempts == 1
        end_waits(app)
        assert deliver(app) == (1, None)
        assert len(server.received) == (2 if stage == "DOT" else 1)
        for content in server.received:
            assert f"Message-ID: <{row.message_id}@example.com>".encode() in content
    assert rows(app) == []


def test_the_servers_own_words_are_kept_nowhere(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with SMTPServer(rcpt_reply="550 5.1.1 alice@example.com does not live here") as server:
        app = app_for(make_app, server)
        request_email(app)
        deliver(app)
    assert "alice" not in str(rows(app)[0].failure)
    assert "not delivered" in caplog.text
    assert "alice" not in caplog.text


# International addresses


def test_an_international_recipient_is_emailed_with_the_flag(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=True) as server:
        app = app_for(make_app, server)
        request_email(app, "josé@example.com")
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.smtputf8
    assert record.rcpt_tos == ["josé@example.com"]


def test_an_ordinary_recipient_is_emailed_without_the_flag(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=True) as server:
        app = app_for(make_app, server, SITE_NAME="Bücherei")
        request_email(app)
        deliver(app)
        [record] = server.wait_for(1)
    assert not record.smtputf8


def test_an_international_recipient_is_refused_for_good_by_an_old_server_and_blocks_nobody(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=False) as server:
        app = app_for(make_app, server)
        request_email(app, "josé@example.com")
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        [record] = server.wait_for(1)
    assert record.rcpt_tos == ["bob@example.com"]
    [row] = rows(app)
    assert row.run_after is None
    assert "SMTPUTF8" in str(row.failure)


def test_an_international_recipient_refused_at_email_blocks_nobody(make_app: MakeApp) -> None:
    # Some servers offer SMTPUTF8 and then refuse it; every other email is taken.
    with ScriptedServer({"MAIL": ["555 5.5.4 Unsupported option: SMTPUTF8", USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app, "josé@example.com")
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert len(server.received) == 1
    [row] = rows(app)
    assert (row.address, row.run_after) == ("josé@example.com", None)


def test_an_international_domain_goes_out_in_ascii(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=False) as server:
        app = app_for(make_app, server, EMAIL_FROM="Bücherei <konto@bücher.example>")
        request_email(app, "anna@bücher.example")
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.rcpt_tos == ["anna@xn--bcher-kva.example"]
    assert record.mail_from == "konto@xn--bcher-kva.example"
    assert record.message["To"] == "anna@xn--bcher-kva.example"
    assert record.message["From"] == "Bücherei <konto@xn--bcher-kva.example>"
    assert record.message["Message-ID"].endswith("@xn--bcher-kva.example>")


# What a batch leaves behind


def test_a_connection_is_not_opened_without_email(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
        assert deliver(app) == (0, None)
        assert server.connections == 0


def test_a_notice_carries_no_name_of_the_machine_that_sent_it(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unasked(*_: object) -> str:
        pytest.fail("the name of this host was looked up, which no timeout covers")

    with ScriptedServer() as server:
        app = app_for(make_app, server)
        request_email(app, kind=NOTICE)
        monkeypatch.setattr("socket.getfqdn", unasked)
        monkeypatch.setattr("socket.gethostname", unasked)
        assert deliver(app) == (1, None)
        assert_delivered(app, server)
