"""MAIL FROM and RCPT TO in one packet, for servers that announce PIPELINING (RFC 2920)."""

import re

import pytest

from pwreset.mail import smtp
from tests.support.app import MakeApp
from tests.support.certificates import Authority
from tests.support.databases import on_sqlite
from tests.support.outbox import SECURE, addresses_of, app_for, assert_uncharged, deliver, request_email, rows
from tests.support.pages import text_of
from tests.support.scripted_smtp import CLOSE, SILENT, USUAL, ScriptedServer, Step
from tests.support.smtp import SMTPServer

pytestmark = on_sqlite  # the SMTP commands are the same with both databases
TAKES_BOTH = {"EHLO": "250-scripted.test\r\n250 PIPELINING"}
TAKES_ONE = {"EHLO": "250-scripted.test\r\n250 8BITMIME"}
# No answer to the sender before the recipient has come.
ENDS = [
    "\n.\n",
    "\r.\r",
    "\r\n.\r\n",
    "\n.\r\n",
    "\r\n.\r",
    "\r.\n",
    "\r\r\n.\r\r\n",
    "\n\r.\n\r",
    "\0.\n",
    "\x0b.\x0c",
    "\x85.\x85",
]
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
WAITS_FOR_BOTH = {"MAIL": Step(""), "RCPT": "250 2.1.0 OK\r\n250 2.1.5 OK"}


def test_a_server_that_answers_both_at_once_gets_the_email(make_app: MakeApp) -> None:
    with ScriptedServer({**TAKES_BOTH, **WAITS_FOR_BOTH}) as server:
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app) == (1, None)
        assert len(server.received) == 1


def test_a_server_that_does_not_say_so_gets_one_after_the_other(make_app: MakeApp) -> None:
    with ScriptedServer({**TAKES_ONE, **WAITS_FOR_BOTH}) as server:
        app = app_for(make_app, server)
        request_email(app)
        deliver(app)
        assert server.commands == ["EHLO", "MAIL"]


def test_what_a_server_announced_before_tls_does_not_count(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_pem_path(tmp_path)))
    offers = ["250-scripted.test\r\n250-PIPELINING\r\n250 STARTTLS", "250-scripted.test\r\n250 AUTH PLAIN"]
    with ScriptedServer({"EHLO": offers, **WAITS_FOR_BOTH}, tls_context=authority.good) as server:
        app = app_for(make_app, server, **SECURE)
        request_email(app)
        deliver(app)
        assert "RCPT" not in server.commands


def test_a_batch_goes_over_one_connection(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_pem_path(tmp_path)))
    with SMTPServer(tls_context=authority.good, auth=(SECURE["EMAIL_USER"], SECURE["EMAIL_PASS"])) as server:
        server.extensions = ("PIPELINING",)
        app = app_for(make_app, server, **SECURE)
        people = [f"robin.{number}@example.com" for number in range(5)]
        for address in people:
            request_email(app, address)
        assert deliver(app) == (5, None)
        assert [mail.rcpt_tos for mail in server.messages] == [[address] for address in people]
        assert server.connections == 1


@pytest.mark.parametrize("ehlo", [TAKES_BOTH, TAKES_ONE])
def test_a_refused_recipient_spares_the_next_email(ehlo: dict[str, str], make_app: MakeApp) -> None:
    with ScriptedServer({**ehlo, "RCPT": ["550 5.1.1 Nobody here", USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app, "gone@example.com")
        request_email(app, "alice@example.com")
        assert deliver(app) == (2, None)
        assert [(row.address, row.run_after) for row in rows(app)] == [("gone@example.com", None)]
        assert server.connections == 1
        assert b"To: alice@example.com" in server.received[0]


@pytest.mark.parametrize("ehlo", [TAKES_BOTH, TAKES_ONE])
@pytest.mark.parametrize("refusal", ["450 4.7.1 Later", "550 5.7.1 Not you", "421 4.3.2 Closing"])
def test_a_refused_sender_lets_all_email_wait_and_the_next_pass_delivers_it(
    refusal: str, ehlo: dict[str, str], make_app: MakeApp
) -> None:
    with ScriptedServer({**ehlo, "MAIL": [refusal, USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app)
        done, problem = deliver(app)
        assert (done, problem is None) == (0, False)
        assert_uncharged(app)
        assert deliver(app) == (1, None)
        assert len(server.received) == 1


@pytest.mark.parametrize("ehlo", [TAKES_BOTH, TAKES_ONE])
def test_a_connection_that_breaks_between_the_two_replies_charges_only_this_email(
    ehlo: dict[str, str], make_app: MakeApp
) -> None:
    with ScriptedServer({**ehlo, "MAIL": [Step("250 2.1.0 OK", then="close"), USUAL]}) as server:
        app = app_for(make_app, server)
        request_email(app, "first@example.com")
        request_email(app, "second@example.com")
        assert deliver(app) == (2, None)
        assert addresses_of(app) == ["first@example.com"]
        assert rows(app)[0].attempts == 1


@pytest.mark.parametrize("failure", [SILENT, CLOSE], ids=["silent", "closed"])
def test_a_recipient_that_a_server_is_stuck_over_does_not_hold_up_the_others(failure: Step, make_app: MakeApp) -> None:
    """It may keep its answer to the sender back until it has one to the recipient (RFC 2920 section 3.2)."""
    held_back = {"MAIL": [Step(""), USUAL], "RCPT": [failure, failure, USUAL]}
    with ScriptedServer({**TAKES_BOTH, **held_back}) as server:
        app = app_for(make_app, server, EMAIL_TIMEOUT="0.3")
        for address in ("stuck@example.com", "alice@example.com", "bob@example.com"):
            request_email(app, address)
        assert deliver(app)[0] == 0
        assert_uncharged(app, 3)
        assert deliver(app) == (3, None)  # one command after the other now
        assert [(row.address, row.attempts) for row in rows(app)] == [("stuck@example.com", 1)]
        assert len(server.received) == 2


def test_commands_go_together_again_after_a_while(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "NO_PIPELINING", 0)
    with ScriptedServer({**TAKES_BOTH, "MAIL": Step(""), "RCPT": [CLOSE, WAITS_FOR_BOTH["RCPT"]]}) as server:
        app = app_for(make_app, server)
        request_email(app)
        assert deliver(app)[0] == 0
        assert deliver(app) == (1, None)
        assert len(server.received) == 1


@pytest.mark.parametrize("letter", ["", "\u00fc"], ids=["7bit", "quoted-printable"])
@pytest.mark.parametrize("end", ENDS)
def test_no_end_of_a_line_in_a_teams_own_words_ends_the_email(
    end: str, letter: str, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2023-51764, RFC 5321 section 2.3.8: to some servers a bare CR or LF around a dot is the end of an email."""
    smuggled = end.join([f"Hello{letter}", "MAIL FROM:<accounts@example.com>", "RCPT TO:<eve@example.com>", "DATA", ""])
    monkeypatch.setattr(SMTPServer, "extensions", ("PIPELINING",))
    with SMTPServer() as server:
        app = app_for(make_app, server)
        request_email(app, extra_email_context={"site_name": smuggled})
        request_email(app)
        assert deliver(app) == (2, None)
        assert [mail.rcpt_tos for mail in server.messages] == [["alice@example.com"]] * 2
        assert "RCPT TO:<eve@example.com>" in text_of(server.messages[0].message)
        assert BARE.findall(server.messages[0].content) == []
