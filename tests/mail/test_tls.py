"""An email goes out only over verified TLS and after a login, where the settings ask for it."""

import logging
import traceback

import pytest

from pwreset.extensions import mail
from pwreset.mail.smtp import ServerUnavailable
from pwreset.outbox import emails
from tests.support.app import MakeApp
from tests.support.certificates import Authority
from tests.support.databases import on_sqlite
from tests.support.outbox import (
    IMPLICIT,
    LOGIN,
    SECURE,
    app_for,
    assert_delivered,
    assert_uncharged,
    deliver,
    request_email,
)
from tests.support.scripted_smtp import ScriptedServer
from tests.support.smtp import SMTPServer

pytestmark = [on_sqlite, pytest.mark.usefixtures("no_socket_left")]  # both databases send the same
WRONG = ["untrusted", "wrong_host", "expired"]


def test_an_email_goes_out_over_verified_tls_after_a_login(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, require_starttls=True, auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.tls
    assert record.user == LOGIN[0]
    assert (record.mail_from, record.rcpt_tos) == ("accounts@example.com", ["alice@example.com"])


def test_an_email_goes_out_over_tls_from_the_first_byte(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, implicit_tls=True, auth=LOGIN) as server:
        app = app_for(make_app, server, **IMPLICIT)
        request_email(app)
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.tls
    assert record.user == LOGIN[0]


@pytest.mark.parametrize("certificate", WRONG)
def test_nothing_is_sent_to_a_server_with_a_wrong_certificate(
    certificate: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer(tls_context=getattr(authority, certificate)) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        done, problem = deliver(app)
        assert server.commands == ["EHLO", "STARTTLS"]
    assert done == 0
    assert "certificate is not trusted" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("certificate", WRONG)
def test_nothing_is_sent_to_an_implicit_tls_server_with_a_wrong_certificate(
    certificate: str, make_app: MakeApp, authority: Authority
) -> None:
    with ScriptedServer(tls_context=getattr(authority, certificate), implicit_tls=True) as server:
        app = app_for(make_app, server, **IMPLICIT)
        request_email(app)
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
            connection.send(emails.test_message("alice@example.com"))
        assert (server.login_attempts, server.messages) == (0, [])


def test_an_email_waits_for_the_day_the_certificate_is_right_again(make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.expired, auth=LOGIN) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        deliver(app)
        server.tls_context = authority.good
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1


def test_nothing_is_sent_where_starttls_was_stripped(make_app: MakeApp) -> None:
    with ScriptedServer() as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        _, problem = deliver(app)
        assert set(server.commands) <= {"EHLO", "STARTTLS"}
    assert "offers no STARTTLS" in str(problem)
    assert_uncharged(app)


@pytest.mark.parametrize("reply", ["454 4.7.0 TLS not available", "502 5.5.1 No", "250 Fine, go on without"])
def test_nothing_is_sent_where_starttls_is_refused(reply: str, make_app: MakeApp, authority: Authority) -> None:
    with ScriptedServer({"STARTTLS": reply}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        done, _ = deliver(app)
        assert server.commands == ["EHLO", "STARTTLS"]
    assert done == 0
    assert_uncharged(app)


def test_what_was_injected_before_tls_is_ignored_after_it(make_app: MakeApp, authority: Authority) -> None:
    injected = "220 2.0.0 Ready\r\n550 5.0.0 injected"
    with ScriptedServer({"STARTTLS": injected}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        assert deliver(app) == (1, None)
        assert_delivered(app, server)


def test_a_relay_gets_email_without_tls_and_login(make_app: MakeApp) -> None:
    with ScriptedServer() as server:
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (1, None)
        assert_delivered(app, server)
        assert server.commands == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


def test_a_server_on_this_machine_gets_the_name_of_no_host(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server, EMAIL_FROM="root@localhost")
        request_email(app)
        assert deliver(app) == (1, None)
        [record] = server.wait_for(1)
    assert record.mail_from == "root@localhost"


@pytest.mark.parametrize("reply", ["535 5.7.8 Not accepted", "534 5.7.9 Application-specific password required"])
def test_a_refused_login_loses_nothing(reply: str, make_app: MakeApp, authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, auth=LOGIN, auth_reply=reply) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app, "alice@example.com")
        request_email(app, "bob@example.com")
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
        request_email(app)
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
        request_email(app)
        assert app.debug
        with app.app_context(), mail.connect() as connection, pytest.raises(ServerUnavailable) as caught:
            connection.send(emails.test_message("alice@example.com"))
        _, problem = deliver(app)
    printed = capfd.readouterr()
    said = "".join(traceback.format_exception(caught.value)) + str(problem) + caplog.text + printed.out + printed.err
    assert "5.7.8" in said
    assert LOGIN[1] not in said
    assert "AGFiY2Rl" not in said  # NUL and its first characters as AUTH PLAIN sends them
