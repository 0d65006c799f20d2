"""A mail server that is silent, slow, absent or closes connections costs limited time and loses no email."""

import time

import pytest

from tests.support.app import MakeApp
from tests.support.certificates import Authority
from tests.support.databases import on_sqlite
from tests.support.outbox import (
    IMPLICIT,
    SECURE,
    addresses_of,
    app_for,
    assert_delivered,
    assert_uncharged,
    deliver,
    end_waits,
    request_email,
    rows,
)
from tests.support.scripted_smtp import CLOSE, SILENT, USUAL, ScriptedServer, Step, drip
from tests.support.smtp import SMTPServer

pytestmark = [on_sqlite, pytest.mark.usefixtures("no_socket_left")]  # both databases send the same
BEFORE_THE_MAIL = ["CONNECT", "EHLO", "STARTTLS", "HANDSHAKE", "AUTH", "MAIL"]
IN_THE_MAIL = ["RCPT", "DATA", "DOT"]
ENDLESS = drip(0.05, endless=True)
# The head of a TLS record that promises 16,255 bytes, and then byte after byte of it.
ENDLESS_RECORD = drip(0.05, "\x16\x03\x03\x3f\x7f" + "x" * 1000)
QUICK = {"EMAIL_TIMEOUT": "0.3"}
HURRIED = {"EMAIL_TIMEOUT": "0.4", "EMAIL_DEADLINE": "0.5"}


@pytest.mark.parametrize("stage", BEFORE_THE_MAIL)
def test_a_server_that_falls_silent_before_the_email_is_left_in_time(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: SILENT}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **QUICK)
        request_email(app)
        start = time.monotonic()
        done, problem = deliver(app)
        assert time.monotonic() - start < 2
        assert server.stages.count(stage) == 1
        assert server.received == []
    assert done == 0
    assert "did not answer in time" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("stage", IN_THE_MAIL)
def test_a_server_that_falls_silent_in_an_email_gets_it_again_later(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: [SILENT, USUAL]}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **QUICK)
        request_email(app)
        start = time.monotonic()
        assert deliver(app) == (1, None)
        assert time.monotonic() - start < 2
        [row] = rows(app)
        assert row.attempts == 1
        assert "did not answer in time" in str(row.failure)
        end_waits(app)
        assert deliver(app) == (1, None)
        assert rows(app) == []


def test_a_server_that_falls_silent_in_an_implicit_tls_handshake_is_left_in_time(
    make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({"HANDSHAKE": SILENT}, tls_context=authority.good, implicit_tls=True) as server:
        app = app_for(make_app, server, **IMPLICIT, **QUICK)
        request_email(app)
        start = time.monotonic()
        _, problem = deliver(app)
        assert time.monotonic() - start < 2
    assert "did not answer in time" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("stage", BEFORE_THE_MAIL)
def test_a_server_that_drips_before_the_email_is_aborted_at_the_deadline(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    # Python limits a complete handshake by the timeout, so this one starts late.
    script = {"EHLO": drip(0.004), stage: ENDLESS_RECORD} if stage == "HANDSHAKE" else {stage: ENDLESS}
    with ScriptedServer(script, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **HURRIED)
        request_email(app)
        start = time.monotonic()
        done, problem = deliver(app)
        assert 0.4 < time.monotonic() - start < 2
        assert server.stages.count(stage) == 1
    assert (done, problem) == (0, "the mail server took longer than 0.5 s")
    assert_uncharged(app)


@pytest.mark.parametrize("stage", IN_THE_MAIL)
def test_a_server_that_drips_in_an_email_is_aborted_at_the_deadline(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: ENDLESS}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, **HURRIED)
        request_email(app)
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
        request_email(app)
        start = time.monotonic()
        done, problem = deliver(app)
        assert time.monotonic() - start < 2
    assert done == 0
    assert problem
    assert_uncharged(app)


def test_the_deadline_starts_anew_with_each_email(make_app: MakeApp) -> None:
    with SMTPServer(latency=0.05) as server:  # about 0.25 s an email
        app = app_for(make_app, server, EMAIL_TIMEOUT="0.4", EMAIL_DEADLINE="0.6")
        for number in range(4):
            request_email(app, f"user{number}@example.com")
        assert deliver(app) == (4, None)
        assert len(server.messages) == 4


@pytest.mark.parametrize("behaviour", [SILENT, CLOSE, "500 5.5.2 What?", "421 4.3.2 Going", ENDLESS])
def test_a_failing_quit_does_not_send_again(behaviour: str | Step, make_app: MakeApp) -> None:
    with ScriptedServer({"QUIT": behaviour}) as server:
        app = app_for(make_app, server, **HURRIED)
        request_email(app)
        start = time.monotonic()
        assert deliver(app) == (1, None)
        assert time.monotonic() - start < 2
        assert_delivered(app, server)
        deliver(app)
        assert len(server.received) == 1


@pytest.mark.parametrize("stage", [*BEFORE_THE_MAIL, *IN_THE_MAIL])
def test_a_server_that_closes_the_connection_at_any_time_loses_no_email(
    stage: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer({stage: [CLOSE, USUAL]}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        deliver(app)
        assert addresses_of(app) == ["alice@example.com"]
        end_waits(app)
        assert deliver(app) == (1, None)
        assert rows(app) == []
        assert server.received


@pytest.mark.parametrize(
    "greeting", ["554 5.3.2 No service", "421 4.3.2 Too many", "HTTP/1.1 400 Bad Request", "220-", "x" * 20000]
)
def test_a_greeting_that_is_none_loses_no_email(greeting: str, make_app: MakeApp) -> None:
    with ScriptedServer({"CONNECT": greeting}) as server:
        app = app_for(make_app, server, **QUICK)
        request_email(app)
        done, problem = deliver(app)
        assert server.received == []
    assert done == 0
    assert problem
    assert_uncharged(app)


def test_nothing_listening_loses_no_email(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
    request_email(app)
    _, problem = deliver(app)
    assert problem == "the mail server refused the connection: check EMAIL_HOST and EMAIL_PORT"
    assert_uncharged(app)


def test_an_unknown_host_loses_no_email(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server, EMAIL_HOST="nowhere.invalid", EMAIL_USE_TLS="false")
    request_email(app)
    _, problem = deliver(app)
    assert problem == "the mail server's name was not found: check EMAIL_HOST and this machine's network (DNS)"
    assert_uncharged(app)
