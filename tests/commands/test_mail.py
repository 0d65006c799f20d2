"""`flask mail check` reports each step and, where one fails, what to do."""

import time

import pytest
from click.testing import Result
from flask import Flask

from tests.support.app import MakeApp
from tests.support.certificates import Authority
from tests.support.databases import on_sqlite
from tests.support.outbox import IMPLICIT, LOGIN, SECURE, app_for, rows
from tests.support.scripted_smtp import CLOSE, SILENT, Behaviour, ScriptedServer, drip
from tests.support.smtp import SMTPServer

pytestmark = on_sqlite  # the SMTP commands are the same with both databases
STEPS = ["switch to TLS, and check the certificate ... ", "log in ... "]
APP_PASSWORD = "https://myaccount.google.com/apppasswords"


def check(app: Flask, *options: str) -> Result:
    return app.test_cli_runner().invoke(args=["mail", "check", *options])


def assert_failed(result: Result, step: str, *words: str) -> None:
    """The command reported which step failed and why, in one line, and ended with status 1."""
    assert result.exit_code == 1
    *_, failed, why = result.output.splitlines()
    assert failed == f"{step} ... failed"
    assert why.startswith("Error: ")
    assert why.endswith(".")
    for word in words:
        assert word in why
    assert LOGIN[1] not in result.output


@pytest.fixture
def gmail(authority: Authority):
    """Return a server that is like Gmail's: STARTTLS, then a login."""
    with SMTPServer(tls_context=authority.good, require_starttls=True, auth=LOGIN) as server:
        yield server


def test_each_step_is_printed_and_ok(gmail: SMTPServer, make_app: MakeApp) -> None:
    result = check(app_for(make_app, gmail, **SECURE))
    connect = f"connect to localhost:{gmail.port} ... "
    assert result.output.splitlines() == [
        *(f"{step}ok" for step in [connect, *STEPS]),
        "The mail server works. --to ADDRESS sends a test email.",
    ]
    assert result.exit_code == 0
    assert (gmail.logins, gmail.messages) == (1, [])


def test_a_test_email_is_sent_where_it_is_asked_for(gmail: SMTPServer, make_app: MakeApp) -> None:
    app = app_for(make_app, gmail, **SECURE, SITE_NAME="The Library")
    result = check(app, "--to", "alice@example.com")
    assert result.output.splitlines()[-2:] == ["send the test email ... ok", "The mail server works."]
    assert result.exit_code == 0
    [record] = gmail.wait_for(1)
    assert record.rcpt_tos == ["alice@example.com"]
    assert record.message["Subject"] == "Test mail from The Library"
    assert rows(app) == []


def test_a_relay_is_checked_without_tls_and_login(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        result = check(app_for(make_app, server), "--to", "alice@example.com")
        assert len(server.messages) == 1
    assert [line.partition(" ...")[0] for line in result.output.splitlines()] == [
        f"connect to localhost:{server.port}",
        "send the test email",
        "The mail server works.",
    ]


def test_a_server_with_tls_from_the_first_byte_is_checked(authority: Authority, make_app: MakeApp) -> None:
    with SMTPServer(tls_context=authority.good, implicit_tls=True, auth=LOGIN) as server:
        result = check(app_for(make_app, server, **IMPLICIT))
        assert server.logins == 1
    assert result.exit_code == 0
    assert "switch to TLS" not in result.output


def test_the_check_needs_no_database(gmail: SMTPServer, make_app: MakeApp, nowhere: str) -> None:
    app = app_for(make_app, gmail, **SECURE, DATABASE_URL=nowhere)
    assert check(app).exit_code == 0


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("535 5.7.8 Username and Password not accepted. Learn more at https://support.google.com", "535 5.7.8"),
        ("534 5.7.9 Application-specific password required", "534 5.7.9"),
    ],
)
def test_a_login_gmail_refuses_leads_to_the_app_password(
    reply: str, code: str, gmail: SMTPServer, make_app: MakeApp
) -> None:
    gmail.auth_reply = reply
    result = check(app_for(make_app, gmail, **SECURE), "--to", "alice@example.com")
    assert_failed(result, "log in", code, "app password", APP_PASSWORD, "EMAIL_PASS")
    assert gmail.messages == []


def test_a_login_another_server_refuses_names_the_settings(gmail: SMTPServer, make_app: MakeApp) -> None:
    gmail.auth_reply = "535 Authentication failed"
    result = check(app_for(make_app, gmail, **SECURE))
    assert_failed(result, "log in", "(535)", "EMAIL_USER", "EMAIL_PASS")
    assert "google" not in result.output


def test_a_server_without_a_login_names_the_settings(authority: Authority, make_app: MakeApp) -> None:
    with SMTPServer(tls_context=authority.good) as server:
        result = check(app_for(make_app, server, **SECURE))
    assert_failed(result, "log in", "offers no login", "EMAIL_USER")


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [("untrusted", "unable to get local issuer"), ("expired", "expired"), ("wrong_host", "Hostname mismatch")],
)
def test_a_wrong_certificate_is_reported_with_its_reason(
    certificate: str, reason: str, authority: Authority, make_app: MakeApp
) -> None:
    with SMTPServer(tls_context=getattr(authority, certificate), auth=LOGIN) as server:
        result = check(app_for(make_app, server, **SECURE))
        assert server.login_attempts == 0
    words = "certificate is not trusted", reason, "EMAIL_HOST", "no login and no email was sent"
    assert_failed(result, "switch to TLS, and check the certificate", *words)


def test_a_wrong_certificate_from_the_first_byte_is_reported(authority: Authority, make_app: MakeApp) -> None:
    with SMTPServer(tls_context=authority.untrusted, implicit_tls=True, auth=LOGIN) as server:
        result = check(app_for(make_app, server, **IMPLICIT))
    assert_failed(result, f"connect to localhost:{server.port}", "certificate is not trusted")


def test_a_server_without_starttls_is_reported(make_app: MakeApp) -> None:
    with ScriptedServer() as server:
        result = check(app_for(make_app, server, **SECURE))
        assert not {"AUTH", "MAIL"} & set(server.commands)
    words = "offers no STARTTLS", "nothing was sent", "EMAIL_PORT", "EMAIL_USE_SSL"
    assert_failed(result, "switch to TLS, and check the certificate", *words)


def test_a_wrong_host_is_reported(make_app: MakeApp) -> None:
    result = check(make_app(EMAIL_HOST="smtp.nowhere.invalid", EMAIL_USER=LOGIN[0], EMAIL_PASS=LOGIN[1]))
    assert_failed(result, "connect to smtp.nowhere.invalid:587", "name was not found", "EMAIL_HOST")


def test_a_refused_connection_is_reported(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
    step = f"connect to localhost:{server.port}"
    assert_failed(check(app), step, "refused the connection", "EMAIL_HOST", "EMAIL_PORT")


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("CONNECT", "connect to localhost:{}"),
        ("STARTTLS", "switch to TLS, and check the certificate"),
        ("HANDSHAKE", "switch to TLS, and check the certificate"),
        ("AUTH", "log in"),
        ("MAIL", "send the test email"),
        ("DOT", "send the test email"),
    ],
)
def test_a_silent_server_is_reported_after_the_timeout(
    stage: str, step: str, authority: Authority, make_app: MakeApp
) -> None:
    with ScriptedServer({stage: SILENT}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, EMAIL_TIMEOUT="0.2", EMAIL_DEADLINE="2")
        start = time.monotonic()
        result = check(app, "--to", "alice@example.com")
        assert time.monotonic() - start < 2
    assert_failed(result, step.format(server.port), "did not answer in time", "EMAIL_PORT", "firewall")


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("CONNECT", "connect to localhost:{}"),
        ("AUTH", "log in"),
        ("MAIL", "send the test email"),
    ],
)
def test_a_server_that_never_ends_its_reply_is_aborted_and_reported(
    stage: str, step: str, authority: Authority, make_app: MakeApp
) -> None:
    with ScriptedServer({stage: drip(0.05, endless=True)}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE, EMAIL_TIMEOUT="0.4", EMAIL_DEADLINE="0.5")
        start = time.monotonic()
        result = check(app, "--to", "alice@example.com")
        assert time.monotonic() - start < 2
    assert_failed(result, step.format(server.port), "longer than 0.5 s")


def test_starttls_at_the_port_for_implicit_tls_is_reported(authority: Authority, make_app: MakeApp) -> None:
    with SMTPServer(tls_context=authority.good, implicit_tls=True, auth=LOGIN) as server:
        result = check(app_for(make_app, server, **SECURE, EMAIL_TIMEOUT="0.2"))
    assert_failed(result, f"connect to localhost:{server.port}", "EMAIL_PORT")


def test_implicit_tls_at_the_port_for_starttls_is_reported(gmail: SMTPServer, make_app: MakeApp) -> None:
    result = check(app_for(make_app, gmail, **IMPLICIT))
    words = "TLS could not be set up", "EMAIL_PORT", "587", "465"
    assert_failed(result, f"connect to localhost:{gmail.port}", *words)


@pytest.mark.parametrize(
    ("script", "step", "word"),
    [
        ({"CONNECT": "554 5.7.1 Go away"}, "connect to localhost:{}", "answered 554"),
        ({"CONNECT": CLOSE}, "connect to localhost:{}", "closed the connection"),
        ({"MAIL": "550 5.7.1 No"}, "send the test email", "EMAIL_FROM"),
        ({"RCPT": "550 5.1.1 Who is alice@example.com?"}, "send the test email", "refused the recipient (550)"),
        ({"DOT": "554 5.7.1 Spam"}, "send the test email", "refused the email (554)"),
    ],
)
def test_a_rejection_is_reported_with_its_code(
    script: dict[str, Behaviour], step: str, word: str, make_app: MakeApp
) -> None:
    with ScriptedServer(script) as server:
        result = check(app_for(make_app, server), "--to", "alice@example.com")
    assert_failed(result, step.format(server.port), word)
    assert "alice" not in result.output


def test_without_a_mail_server_the_check_says_where_email_goes(app: Flask) -> None:
    result = check(app)
    assert result.exit_code == 1
    assert "kept in the local mailbox" in result.output
    assert "EMAIL_USER" in result.output


@pytest.mark.parametrize("address", ["nobody", "a@b@c.example", "alice@example.com, bob@example.com"])
def test_a_test_email_to_no_address_is_bad_usage(address: str, gmail: SMTPServer, make_app: MakeApp) -> None:
    result = check(app_for(make_app, gmail, **SECURE), "--to", address)
    assert result.exit_code == 2
    assert "--to" in result.output
    assert gmail.connections == 0
