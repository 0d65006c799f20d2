"""How mail reaches a mail server, seen by real servers that behave, misbehave, or are somebody else's."""

import gc
import logging
import os
import stat
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from flask import Flask
from flask_mail import email_dispatched

from pwreset.extensions import mail
from pwreset.mail.smtp import ServerUnavailable
from pwreset.outbox import emails
from tests.support.app import MakeApp
from tests.support.certificates import Authority
from tests.support.clock import waited_for
from tests.support.databases import Database, on_sqlite
from tests.support.outbox import (
    IMPLICIT,
    LOGIN,
    NOTICE,
    SECURE,
    addresses_of,
    app_for,
    ask,
    assert_uncharged,
    deliver,
    event_kinds,
    rows,
    wait_over,
)
from tests.support.scripted_smtp import CLOSE, SILENT, USUAL, ScriptedServer, Step, drip
from tests.support.smtp import SMTPServer, in_turn

pytestmark = on_sqlite  # what is said to a mail server is the same from both
WRONG = ["untrusted", "wrong_host", "expired"]
BEFORE_THE_MAIL = ["CONNECT", "EHLO", "STARTTLS", "HANDSHAKE", "AUTH", "MAIL"]
IN_THE_MAIL = ["RCPT", "DATA", "DOT"]
ENDLESS = drip(0.05, endless=True)
# The head of a TLS record that promises 16,255 bytes, and then byte after byte of it.
ENDLESS_RECORD = drip(0.05, "\x16\x03\x03\x3f\x7f" + "x" * 1000)
QUICK = {"EMAIL_TIMEOUT": "0.3"}
HURRIED = {"EMAIL_TIMEOUT": "0.4", "EMAIL_DEADLINE": "0.5"}


@pytest.fixture(autouse=True)
def no_socket_left(database: Database) -> Iterator[None]:
    """Every test leaves as many sockets as it found, whatever failed in it.

    With its database there already: the first one on PostgreSQL opens connections that stay for the next ones.
    """
    before = len(open_sockets())
    yield
    gc.collect()  # so that a forgotten socket warns here, and not in some other test
    # Threads of earlier tests may have one for a moment; a forgotten one stays.
    assert waited_for(lambda: len(open_sockets()) <= before), open_sockets()


def open_sockets() -> list[str]:
    return [descriptor for descriptor in map(str, range(512)) if is_socket(descriptor)]


def is_socket(descriptor: str) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode)
    except OSError:
        return False


def settled(app: Flask, server: ScriptedServer, number: int = 1) -> None:
    """The mails are with the server and gone from the outbox."""
    assert len(server.received) == number
    assert rows(app) == []


# TLS and login


def test_a_mail_goes_out_over_verified_tls_after_a_login(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, require_starttls=True, auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.tls
    assert record.user == LOGIN[0]
    assert (record.mail_from, record.rcpt_tos) == ("accounts@example.com", ["alice@example.com"])


def test_a_mail_goes_out_over_tls_from_the_first_byte(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, implicit_tls=True, auth=LOGIN) as server:
        app = app_for(make_app, server, **IMPLICIT)
        ask(app)
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.tls
    assert record.user == LOGIN[0]


@pytest.mark.parametrize("certificate", WRONG)
def test_nothing_is_said_to_a_server_with_a_wrong_certificate(
    certificate: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer(tls_context=getattr(authority, certificate)) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        done, problem = deliver(app)
        assert server.commands == ["EHLO", "STARTTLS"]
    assert done == 0
    assert "certificate is not trusted" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("certificate", WRONG)
def test_nothing_is_said_to_an_implicit_tls_server_with_a_wrong_certificate(
    certificate: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer(tls_context=getattr(authority, certificate), implicit_tls=True) as server:
        app = app_for(make_app, server, **IMPLICIT)
        ask(app)
        _, problem = deliver(app)
        assert server.commands == []
    assert "certificate is not trusted" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("certificate", WRONG)
def test_a_wrong_certificate_is_refused_by_a_connection_of_its_own(
    certificate: str, make_app: MakeApp, authority: Authority
) -> None:
    with SMTPServer(tls_context=getattr(authority, certificate), auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        with app.app_context(), mail.connect() as connection, pytest.raises(ServerUnavailable):
            connection.send(emails.trial_message("alice@example.com"))
        assert (server.login_attempts, server.messages) == (0, [])


def test_a_mail_waits_for_the_day_the_certificate_is_right_again(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.expired, auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        deliver(app)
        server.tls_context = authority.good
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1


def test_nothing_is_sent_where_starttls_was_stripped(make_app: MakeApp) -> None:
    with ScriptedServer() as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        _, problem = deliver(app)
        assert set(server.commands) <= {"EHLO", "STARTTLS"}
    assert "offers no STARTTLS" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("reply", ["454 4.7.0 TLS not available", "502 5.5.1 No", "250 Fine, go on without"])
def test_nothing_is_sent_where_starttls_is_refused(reply: str, make_app: MakeApp, authority: Authority) -> None:
    with ScriptedServer({"STARTTLS": reply}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        done, _ = deliver(app)
        assert server.commands == ["EHLO", "STARTTLS"]
    assert done == 0
    assert_uncharged(app)


def test_what_somebody_on_the_way_said_before_tls_is_not_heard_after_it(
    make_app: MakeApp, authority: Authority
) -> None:
    injected = "220 2.0.0 Ready\r\n550 5.0.0 injected"
    with ScriptedServer({"STARTTLS": injected}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        assert deliver(app) == (1, None)
        settled(app, server)


def test_a_relay_gets_mail_without_tls_and_login(make_app: MakeApp) -> None:
    with ScriptedServer() as server:
        app = app_for(make_app, server)
        ask(app)
        assert deliver(app) == (1, None)
        settled(app, server)
        assert server.commands == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


def test_a_server_on_this_machine_gets_the_name_of_no_host(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server, EMAIL_FROM="root@localhost")
        ask(app)
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.mail_from == "root@localhost"


@pytest.mark.parametrize("reply", ["535 5.7.8 Not accepted", "534 5.7.9 Application-specific password required"])
def test_a_refused_login_loses_nothing(reply: str, make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, auth=LOGIN, auth_reply=reply) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com")
        done, problem = deliver(app)
        assert done == 0
        assert reply[:9] in str(problem)
        assert "https://myaccount.google.com/apppasswords" in str(problem)
        assert_uncharged(app, 2)
        server.auth_reply = None
        assert deliver(app) == (2, None)
        assert [record.rcpt_tos for record in server.messages] == [["alice@example.com"], ["bob@example.com"]]


def test_a_login_that_is_not_offered_loses_nothing(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        _, problem = deliver(app)
        assert server.messages == []
    assert "offers no login" in str(problem)
    assert_uncharged(app)


def test_the_password_is_in_no_exception_and_no_log(
    make_app: MakeApp,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")  # Flask-Mail alone would print the conversation
    caplog.set_level(logging.DEBUG)
    echo = f"535 5.7.8 Wrong password {LOGIN[1]} of {LOGIN[0]}"
    with SMTPServer(tls_context=authority.good, auth=LOGIN, auth_reply=echo) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        assert app.debug
        with app.app_context(), mail.connect() as connection, pytest.raises(ServerUnavailable) as caught:
            connection.send(emails.trial_message("alice@example.com"))
        _, problem = deliver(app)
    printed = capfd.readouterr()
    said = "".join(traceback.format_exception(caught.value)) + str(problem) + caplog.text + printed.out + printed.err
    assert "5.7.8" in said
    assert LOGIN[1] not in said
    assert "AGFiY2Rl" not in said  # NUL and its first letters as AUTH PLAIN carries them


# A server that says nothing, or never ends


@pytest.mark.parametrize("stage", BEFORE_THE_MAIL)
def test_a_server_that_falls_silent_before_the_mail_is_left_in_time(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: SILENT}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **QUICK)
        ask(app)
        start = time.monotonic()
        done, problem = deliver(app)
        assert time.monotonic() - start < 2
        assert server.stages.count(stage) == 1
        assert server.received == []
    assert done == 0
    assert "did not answer in time" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("stage", IN_THE_MAIL)
def test_a_server_that_falls_silent_in_a_mail_gets_it_again_later(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: [SILENT, USUAL]}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **QUICK)
        ask(app)
        start = time.monotonic()
        assert deliver(app) == (1, None)
        assert time.monotonic() - start < 2
        [row] = rows(app)
        assert row.attempts == 1
        assert "did not answer in time" in str(row.failure)
        wait_over(app)
        assert deliver(app) == (1, None)
        assert rows(app) == []


def test_a_server_that_falls_silent_in_an_implicit_tls_handshake_is_left_in_time(
    make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({"HANDSHAKE": SILENT}, tls_context=authority.good, implicit_tls=True) as server:
        app = app_for(make_app, server, **IMPLICIT, **QUICK)
        ask(app)
        start = time.monotonic()
        _, problem = deliver(app)
        assert time.monotonic() - start < 2
    assert "did not answer in time" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("stage", BEFORE_THE_MAIL)
def test_a_server_that_drips_before_the_mail_is_cut_at_the_deadline(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    # Python bounds a handshake as a whole by the timeout, so that one begins late.
    script = {"EHLO": drip(0.004), stage: ENDLESS_RECORD} if stage == "HANDSHAKE" else {stage: ENDLESS}
    with ScriptedServer(script, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **HURRIED)
        ask(app)
        start = time.monotonic()
        done, problem = deliver(app)
        assert 0.4 < time.monotonic() - start < 2
        assert server.stages.count(stage) == 1
    assert (done, problem) == (0, "the mail server took longer than 0.5 s")
    assert_uncharged(app)


@pytest.mark.parametrize("stage", IN_THE_MAIL)
def test_a_server_that_drips_in_a_mail_is_cut_at_the_deadline(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: ENDLESS}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **HURRIED)
        ask(app)
        start = time.monotonic()
        assert deliver(app) == (1, None)
        assert 0.4 < time.monotonic() - start < 2
    [row] = rows(app)
    assert (row.attempts, row.failure) == (1, "the mail server took longer than 0.5 s")


def test_a_server_that_drips_in_an_implicit_tls_handshake_is_left_in_time(
    make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({"HANDSHAKE": ENDLESS_RECORD}, tls_context=authority.good, implicit_tls=True) as server:
        app = app_for(make_app, server, **IMPLICIT, **HURRIED)
        ask(app)
        start = time.monotonic()
        done, problem = deliver(app)
        assert time.monotonic() - start < 2
    assert done == 0
    assert problem
    assert_uncharged(app)


def test_the_deadline_starts_anew_with_each_mail(make_app: MakeApp) -> None:
    with SMTPServer(latency=0.05) as server:  # about 0.25 s a mail
        app = app_for(make_app, server, EMAIL_TIMEOUT="0.4", EMAIL_DEADLINE="0.6")
        for number in range(4):
            ask(app, f"user{number}@example.com")
        assert deliver(app) == (4, None)
        assert len(server.messages) == 4


@pytest.mark.parametrize("behaviour", [SILENT, CLOSE, "500 5.5.2 What?", "421 4.3.2 Going", ENDLESS])
def test_a_failing_quit_does_not_send_again(behaviour: str | Step, make_app: MakeApp) -> None:
    with ScriptedServer({"QUIT": behaviour}) as server:
        app = app_for(make_app, server, **HURRIED)
        ask(app)
        start = time.monotonic()
        assert deliver(app) == (1, None)
        assert time.monotonic() - start < 2
        settled(app, server)
        deliver(app)
        assert len(server.received) == 1


@pytest.mark.parametrize("stage", [*BEFORE_THE_MAIL, *IN_THE_MAIL])
def test_a_server_that_hangs_up_at_any_time_loses_no_mail(stage: str, make_app: MakeApp, authority: Authority) -> None:
    with ScriptedServer({stage: [CLOSE, USUAL]}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        ask(app)
        deliver(app)
        assert addresses_of(app) == ["alice@example.com"]
        wait_over(app)
        assert deliver(app) == (1, None)
        assert rows(app) == []
        assert server.received


@pytest.mark.parametrize(
    "greeting", ["554 5.3.2 No service", "421 4.3.2 Too many", "HTTP/1.1 400 Bad Request", "220-", "x" * 20000]
)
def test_a_greeting_that_is_none_loses_no_mail(greeting: str, make_app: MakeApp) -> None:
    with ScriptedServer({"CONNECT": greeting}) as server:
        app = app_for(make_app, server, **QUICK)
        ask(app)
        done, problem = deliver(app)
        assert server.received == []
    assert done == 0
    assert problem
    assert_uncharged(app)


def test_nothing_listening_loses_no_mail(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
    ask(app)
    _, problem = deliver(app)
    assert problem == "the mail server refused the connection: check EMAIL_HOST and EMAIL_PORT"
    assert_uncharged(app)


def test_an_unknown_host_loses_no_mail(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server, EMAIL_HOST="nowhere.invalid", EMAIL_USE_TLS="false")
    ask(app)
    _, problem = deliver(app)
    assert problem == "the mail server's name was not found: check EMAIL_HOST and this machine's network (DNS)"
    assert_uncharged(app)


# One connection for a batch


def test_five_mails_go_over_one_connection(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        for number in range(5):
            ask(app, f"user{number}@example.com")
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
def test_a_connection_that_was_closed_between_two_mails_is_opened_again(
    script: dict[str, list[str | Step]], make_app: MakeApp
) -> None:
    with ScriptedServer(script) as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com")
        assert deliver(app) == (2, None)
        settled(app, server, 2)
        assert server.connections == 2


def test_a_connection_that_closes_again_and_again_is_opened_once_more_only(make_app: MakeApp) -> None:
    with ScriptedServer({"MAIL": [USUAL, CLOSE]}) as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com")
        done, problem = deliver(app)
        assert server.connections == 2
    assert done == 1
    assert problem == "the mail server closed the connection"
    assert_uncharged(app)


# Whose failure it is


def test_a_refused_sender_stops_the_pass_and_charges_nobody(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply="550 5.7.1 Not you") as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com")
        done, problem = deliver(app)
        assert server.connections == 1
    assert done == 0
    assert "EMAIL_FROM" in str(problem)
    assert_uncharged(app, 2)


def test_a_refused_sender_of_a_rows_own_is_the_rows_failure(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn("550 5.7.1 Not you")) as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com", from_email="team@example.org")
        ask(app, "bob@example.com")
        assert deliver(app) == (2, None)
        [record] = server.wait_for(1)
    assert record.rcpt_tos == ["bob@example.com"]
    [row] = rows(app)
    assert (row.address, row.run_after) == ("alice@example.com", None)
    assert "(550)" in str(row.failure)


def test_a_sender_of_a_rows_own_refused_for_now_waits(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn("451 4.3.0 Later")) as server:
        app = app_for(make_app, server)
        ask(app, from_email="team@example.org")
        assert deliver(app) == (1, None)
        assert rows(app)[0].attempts == 1
        wait_over(app)
        deliver(app)
        [record] = server.wait_for(1)
    assert record.mail_from == "team@example.org"


def test_a_recipient_refused_for_now_is_tried_again_after_30_s_doubling_to_an_hour(make_app: MakeApp) -> None:
    waits = []
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with SMTPServer(rcpt_reply="450 4.2.1 Try later") as server:
        app = app_for(make_app, server)
        with time_machine.travel(now, tick=False) as clock:
            ask(app)
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
def test_a_mail_refused_for_good_is_dead_at_once_and_the_others_go_on(
    option: str, reply: str, make_app: MakeApp
) -> None:
    with SMTPServer(**{option: in_turn(None, reply)}) as server:  # type: ignore[arg-type]
        app = app_for(make_app, server)
        for name in ("alice", "bob", "carol"):
            ask(app, f"{name}@example.com")
        assert deliver(app) == (3, None)
        assert [record.rcpt_tos for record in server.messages] == [["alice@example.com"], ["carol@example.com"]]
        assert server.connections == 1
    [row] = rows(app)
    assert (row.address, row.run_after, row.attempts) == ("bob@example.com", None, 0)
    assert row.failed_at is not None
    assert f"({reply[:3]})" in str(row.failure)
    assert event_kinds(app) == ["refused"]


@pytest.mark.parametrize("reply", ["421 4.7.0 Slow down", "452 4.5.3 Too many"])
def test_a_line_closed_over_one_recipient_costs_the_others_nothing(reply: str, make_app: MakeApp) -> None:
    with ScriptedServer({"RCPT": [reply, USUAL]}) as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert len(server.received) == 1
    [row] = rows(app)
    assert (row.address, row.attempts) == ("alice@example.com", 1)


def test_a_mail_refused_before_its_text_does_not_spoil_the_line_for_the_next(make_app: MakeApp) -> None:
    # Without RSET a server answers the next MAIL with 503, which a row with a sender of its own would take to heart.
    with ScriptedServer({"DATA": ["554 5.5.1 No valid recipients", USUAL]}) as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com", from_email="team@example.org")
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
        ask(app)
        assert deliver(app) == (1, None)
        [row] = rows(app)
        assert (row.attempts, row.failed_at) == (1, None)
        assert "sending limit" in str(row.failure)
        wait_over(app)
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1
    assert rows(app) == []


def test_a_mail_too_large_at_mail_blocks_nobody(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn("552 5.3.4 Message too big")) as server:
        app = app_for(make_app, server)
        ask(app, "alice@example.com")
        ask(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert [record.rcpt_tos for record in server.messages] == [["bob@example.com"]]
    assert rows(app)[0].failed_at is not None


def test_a_receiver_of_flask_mail_s_signal_that_fails_makes_no_mail_look_unsent(make_app: MakeApp) -> None:
    def fail(_app: Flask, message: emails.Message) -> None:
        raise RuntimeError(message.body)

    with SMTPServer() as server, email_dispatched.connected_to(fail):
        app = app_for(make_app, server)
        ask(app)
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1
    assert rows(app) == []


@pytest.mark.parametrize("stage", ["BODY", "DOT"])
def test_a_mail_cut_in_the_middle_is_sent_again_with_the_same_message_id(stage: str, make_app: MakeApp) -> None:
    with ScriptedServer({stage: [CLOSE, USUAL]}) as server:
        app = app_for(make_app, server)
        ask(app)
        assert deliver(app) == (1, None)
        [row] = rows(app)
        assert row.attempts == 1
        wait_over(app)
        assert deliver(app) == (1, None)
        assert len(server.received) == (2 if stage == "DOT" else 1)
        for content in server.received:
            assert f"Message-ID: <{row.message_id}@example.com>".encode() in content
    assert rows(app) == []


def test_the_servers_own_words_are_kept_nowhere(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with SMTPServer(rcpt_reply="550 5.1.1 alice@example.com does not live here") as server:
        app = app_for(make_app, server)
        ask(app)
        deliver(app)
    assert "alice" not in str(rows(app)[0].failure)
    assert "not delivered" in caplog.text
    assert "alice" not in caplog.text


# International addresses


def test_an_international_recipient_is_mailed_with_the_flag(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=True) as server:
        app = app_for(make_app, server)
        ask(app, "josé@example.com")
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.smtputf8
    assert record.rcpt_tos == ["josé@example.com"]


def test_an_ordinary_recipient_is_mailed_without_the_flag(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=True) as server:
        app = app_for(make_app, server, SITE_NAME="Bücherei")
        ask(app)
        deliver(app)
        [record] = server.wait_for(1)
    assert not record.smtputf8


def test_an_international_recipient_is_refused_for_good_by_an_old_server_and_blocks_nobody(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=False) as server:
        app = app_for(make_app, server)
        ask(app, "josé@example.com")
        ask(app, "bob@example.com")
        assert deliver(app) == (2, None)
        [record] = server.wait_for(1)
    assert record.rcpt_tos == ["bob@example.com"]
    [row] = rows(app)
    assert row.run_after is None
    assert "SMTPUTF8" in str(row.failure)


def test_an_international_recipient_refused_at_mail_blocks_nobody(make_app: MakeApp) -> None:
    # Some servers offer SMTPUTF8 and then refuse it; every other mail is taken.
    with ScriptedServer({"MAIL": ["555 5.5.4 Unsupported option: SMTPUTF8", USUAL]}) as server:
        app = app_for(make_app, server)
        ask(app, "josé@example.com")
        ask(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert len(server.received) == 1
    [row] = rows(app)
    assert (row.address, row.run_after) == ("josé@example.com", None)


def test_an_international_domain_goes_out_in_ascii(make_app: MakeApp) -> None:
    with SMTPServer(smtputf8=False) as server:
        app = app_for(make_app, server, EMAIL_FROM="Bücherei <konto@bücher.example>")
        ask(app, "anna@bücher.example")
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.rcpt_tos == ["anna@xn--bcher-kva.example"]
    assert record.mail_from == "konto@xn--bcher-kva.example"
    assert record.message["To"] == "anna@xn--bcher-kva.example"
    assert record.message["From"] == "Bücherei <konto@xn--bcher-kva.example>"
    assert record.message["Message-ID"].endswith("@xn--bcher-kva.example>")


# What a batch leaves behind


def test_a_connection_is_not_opened_without_mail(make_app: MakeApp) -> None:
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
        ask(app, kind=NOTICE)
        monkeypatch.setattr("socket.getfqdn", unasked)
        monkeypatch.setattr("socket.gethostname", unasked)
        assert deliver(app) == (1, None)
        settled(app, server)
