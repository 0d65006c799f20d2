"""The test servers behave as described, as the standard library's client sees them."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.scripted_smtp import CLOSE, RST, SILENT, USUAL, Behaviour, ScriptedServer, Step, drip
from tests.support.smtp import SMTPServer, in_turn

LOGIN = ("mailer", "secret")
SENDER, RECIPIENT = "app@example.com", "ana@example.com"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def mail() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, RECIPIENT, "Your password – reset"
    message.set_content(".\n.leading dot\nGrüße\n")
    return message


def client(server: SMTPServer | ScriptedServer, timeout: float = 5.0) -> smtplib.SMTP:
    return smtplib.SMTP(server.host, server.port, local_hostname="client.test", timeout=timeout)


def send(server: SMTPServer | ScriptedServer, timeout: float = 5.0) -> None:
    with client(server, timeout) as smtp:
        smtp.send_message(mail())


def test_starttls_and_login(authority: Authority, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=authority.ca_pem_path(tmp_path))
    with SMTPServer(tls_context=authority.good, require_starttls=True, auth=LOGIN) as server:
        with client(server) as smtp:
            smtp.ehlo()
            assert smtp.has_extn("starttls") and not smtp.has_extn("auth")
            smtp.starttls(context=context)
            smtp.login(*LOGIN)
            smtp.send_message(mail())
        [record] = server.wait_for(1)
    assert (record.mail_from, record.rcpt_tos, record.user) == (SENDER, [RECIPIENT], "mailer")
    assert record.tls and not record.smtputf8
    assert record.message["Subject"] == "Your password – reset"
    assert record.message.get_content() == ".\r\n.leading dot\r\nGrüße\r\n"  # as on the wire
    assert (server.connections, server.logins, server.login_attempts) == (1, 1, 1)


def test_implicit_tls(authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, implicit_tls=True, auth=LOGIN) as server:
        with smtplib.SMTP_SSL("localhost", server.port, context=authority.client_context()) as smtp:
            smtp.login(*LOGIN)
            smtp.send_message(mail())
            assert not smtp.has_extn("starttls")
    assert server.messages[0].tls and server.connections == 1


@pytest.mark.parametrize("kind", ["wrong_host", "expired", "untrusted"])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_wrong_certificate_is_refused(authority: Authority, kind: str, implicit: bool) -> None:
    with SMTPServer(tls_context=getattr(authority, kind), implicit_tls=implicit) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            if implicit:
                smtplib.SMTP_SSL(server.host, server.port, context=authority.client_context())
            with client(server) as smtp:
                smtp.starttls(context=authority.client_context())
    assert server.messages == []


@pytest.mark.parametrize(
    ("forced", "code"),
    [(None, b"535"), ("534 5.7.9 Application-specific password required", b"534")],
)
def test_a_refused_login(authority: Authority, forced: str | None, code: bytes) -> None:
    with SMTPServer(tls_context=authority.good, auth=LOGIN, auth_reply=forced) as server, client(server) as smtp:
        smtp.starttls(context=authority.client_context())
        password = "wrong" if forced is None else LOGIN[1]
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            smtp.login("mailer", password)
    assert caught.value.smtp_code == int(code)
    assert server.logins == 0 and server.login_attempts == 2  # smtplib tries PLAIN, then LOGIN


def test_email_before_login_is_refused(authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good, auth=LOGIN) as server:
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            send(server)


def test_no_auth_is_offered_without_an_account(authority: Authority) -> None:
    with SMTPServer(tls_context=authority.good) as server, client(server) as smtp:
        smtp.starttls(context=authority.client_context())
        smtp.ehlo()
        assert not smtp.has_extn("auth")


@pytest.mark.parametrize("command", ["mail", "rcpt", "data"])
def test_greylist_once(command: str) -> None:
    server = SMTPServer()
    setattr(server, f"{command}_reply", in_turn("451 4.7.1 Greylisted, try later"))
    with server:
        with pytest.raises((smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused), match="Greylisted"):
            send(server)
        assert server.messages == []
        send(server)
        assert len(server.wait_for(1)) == 1
    assert server.connections == 2


def test_smtputf8() -> None:
    with SMTPServer() as server, client(server) as smtp:
        smtp.ehlo()
        smtp.sendmail(SENDER, ["josé@example.com"], b"Subject: x\r\n\r\nx", mail_options=["SMTPUTF8"])
        [record] = server.wait_for(1)
    assert record.smtputf8 and record.rcpt_tos == ["josé@example.com"]
    with SMTPServer(smtputf8=False) as server, client(server) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("smtputf8")


def test_latency_is_waited_once_for_each_reply() -> None:
    with SMTPServer(latency=0.05) as server:
        start = time.monotonic()
        send(server)
        taken = time.monotonic() - start
    assert 7 * 0.05 <= taken < 2  # greeting, EHLO, MAIL, RCPT, DATA, the dot, QUIT


def test_waiting_in_vain_fails() -> None:
    with SMTPServer() as server, pytest.raises(AssertionError, match="0 of 1 messages"):
        server.wait_for(1, timeout=0.05)


def test_a_failing_reply_is_reported() -> None:
    with SMTPServer(rcpt_reply=lambda: str(1 / 0)) as server:
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="ZeroDivisionError"):
            send(server)
    assert isinstance(server.errors[0], ZeroDivisionError)


def test_stops_while_clients_hang(authority: Authority) -> None:
    start = time.monotonic()
    with SMTPServer(tls_context=authority.good) as server:
        plain, secure = client(server), client(server)
        secure.starttls(context=authority.client_context())
        half = socket.create_connection((server.host, server.port))
        half.sendall(b"EHLO x\r\nSTARTTLS\r\n")
    with SMTPServer(tls_context=authority.good, implicit_tls=True) as server:
        mute = socket.create_connection((server.host, server.port))
    with SMTPServer(latency=60) as server:
        ungreeted = socket.create_connection((server.host, server.port))
    script: dict[str, Behaviour] = {"CONNECT": [SILENT, drip(0.05, endless=True), USUAL], "HANDSHAKE": SILENT}
    with ScriptedServer(script, tls_context=authority.good) as scripted:
        others = [socket.create_connection((scripted.host, scripted.port)) for _ in range(3)]
        others[2].sendall(b"STARTTLS\r\n")
        scripted.wait_for_stage("HANDSHAKE")
    for connection in (half, mute, ungreeted, *others):
        connection.close()
    plain.close()
    secure.close()
    assert time.monotonic() - start < 3


STARTTLS_STAGES = ["HANDSHAKE", "CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BODY", "DOT"]


def whole_session(server: ScriptedServer, authority: Authority, timeout: float) -> None:
    with client(server, timeout) as smtp:
        smtp.starttls(context=authority.client_context())
        smtp.login(*LOGIN)
        smtp.send_message(mail())


@pytest.mark.parametrize("stage", STARTTLS_STAGES)
@pytest.mark.parametrize("step", [SILENT, CLOSE], ids=["silent", "closed"])
def test_silent_or_closed_at_each_stage(authority: Authority, stage: str, step: Step) -> None:
    with ScriptedServer({stage: step}, tls_context=authority.good) as server:
        with pytest.raises((smtplib.SMTPServerDisconnected, OSError)) as caught:
            whole_session(server, authority, timeout=0.3)
    assert ("timed out" in str(caught.value)) == (step is SILENT)
    assert [entered for entered in server.stages if entered != "QUIT"][-1] == stage
    assert len(server.received) == (stage == "DOT")


def test_the_usual_conversation(authority: Authority) -> None:
    with ScriptedServer(tls_context=authority.good) as server:
        whole_session(server, authority, timeout=5)
    verbs = ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]
    assert (server.connections, server.commands) == (1, verbs)


def test_silent_after_accept_times_out() -> None:
    with ScriptedServer({"CONNECT": SILENT}) as server:
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            client(server, timeout=0.1)
    assert server.connections == 1


def test_a_drip_outlives_the_socket_timeout() -> None:
    with ScriptedServer({"EHLO": drip(0.02)}) as server:
        start = time.monotonic()
        send(server, timeout=0.5)
        assert time.monotonic() - start > 0.5
    assert len(server.received) == 1


def test_an_endless_drip_never_lets_go() -> None:
    with ScriptedServer({"CONNECT": drip(0.01, endless=True)}) as server:
        with socket.create_connection((server.host, server.port), 1) as sock:
            came = b"".join(sock.recv(1) for _ in range(30))
    assert came.startswith(b"220-wait\r\n220-wait\r\n")


def test_cut_after_the_dot_records_the_email() -> None:
    with ScriptedServer({"DOT": [CLOSE, USUAL]}) as server:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            send(server)
        assert len(server.received) == 1
        send(server)
    assert len(server.received) == 2 and server.received[0] == server.received[1]
    assert server.received[0].startswith(b"From: app@example.com\r\n")


def test_cut_in_the_body_records_nothing() -> None:
    with ScriptedServer({"BODY": CLOSE}) as server, pytest.raises((smtplib.SMTPException, ConnectionError)):
        with client(server) as smtp:
            smtp.sendmail(SENDER, [RECIPIENT], b"Subject: long\r\n\r\n" + b"x" * 70 + b"\r\n" * 500_000)
    assert server.received == []


@pytest.mark.parametrize(
    ("stage", "reply"),
    [("CONNECT", "421 4.3.2 Closing"), ("MAIL", "451 4.3.0 Later"), ("DATA", "554 5.7.1 No"), ("DOT", "552 5.3.4 Big")],
)
def test_scripted_replies(stage: str, reply: str) -> None:
    with ScriptedServer({stage: [reply, USUAL]}) as server:
        with pytest.raises(smtplib.SMTPResponseException, match=reply[4:]):
            send(server)
        send(server)
    assert server.connections == 2


def test_starttls_not_offered(authority: Authority) -> None:
    with ScriptedServer() as server, client(server) as smtp, pytest.raises(smtplib.SMTPNotSupportedError):
        smtp.starttls(context=authority.client_context())
    assert server.commands == ["EHLO", "QUIT"]


def test_plaintext_injected_after_starttls_leaves_in_one_packet(authority: Authority) -> None:
    injected: dict[str, Behaviour] = {"STARTTLS": "220 Ready\r\n250-evil\r\n250 AUTH PLAIN"}
    with ScriptedServer(injected, tls_context=authority.good) as server:
        with socket.create_connection((server.host, server.port), 2) as sock:
            sock.recv(1000)
            sock.sendall(b"STARTTLS\r\n")
            assert sock.recv(1000) == b"220 Ready\r\n250-evil\r\n250 AUTH PLAIN\r\n"


def test_dropped_at_quit() -> None:
    with ScriptedServer({"QUIT": CLOSE}) as server:
        smtp = client(server)
        smtp.send_message(mail())
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtp.quit()
    assert len(server.received) == 1


def test_scripted_implicit_tls_silent_in_the_handshake(authority: Authority) -> None:
    with ScriptedServer({"HANDSHAKE": SILENT}, tls_context=authority.good, implicit_tls=True) as server:
        with pytest.raises(TimeoutError):
            smtplib.SMTP_SSL(server.host, server.port, timeout=0.1, context=authority.client_context())
    assert server.connections == 1


def test_an_unknown_stage_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="RCTP"):
        ScriptedServer({"RCTP": CLOSE})


def test_a_port_that_is_down_refuses_and_answers_again_when_it_is_back() -> None:
    with ScriptedServer({"CONNECT": [USUAL, SILENT, USUAL]}) as server:
        send(server)
        port, waiting = server.port, socket.create_connection((server.host, server.port), 2)
        server.wait_for_stage("CONNECT", 2)
        server.go_down()
        assert waiting.recv(1) == b""
        waiting.close()
        with pytest.raises(ConnectionRefusedError):
            client(server)
        server.restart()
        assert server.port == port
        send(server)
    assert len(server.received) == 2


def test_a_server_may_stop_while_it_is_down() -> None:
    with SMTPServer() as server:
        send(server)
        server.go_down()
    with pytest.raises(ConnectionRefusedError):
        client(server)


def test_a_connection_can_be_reset() -> None:
    with ScriptedServer({"CONNECT": RST}) as server:
        # It may come before the connection is handed over.
        with pytest.raises(ConnectionResetError), socket.create_connection((server.host, server.port), 2) as sock:
            sock.recv(1)


def test_another_table_takes_the_place_of_the_first_one() -> None:
    with ScriptedServer({"RCPT": "550 5.1.1 No"}) as server:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(server)
        server.behave({"MAIL": ["451 4.3.0 Later", USUAL]})
        with pytest.raises(smtplib.SMTPResponseException, match="Later"):
            send(server)
        server.behave()
        send(server)
        with pytest.raises(ValueError, match="RCTP"):
            server.behave({"RCTP": CLOSE})


def test_it_tells_what_was_kept_what_was_acknowledged_and_what_was_cut() -> None:
    with ScriptedServer({"DOT": [USUAL, "554 5.7.1 No", CLOSE], "BODY": [USUAL, USUAL, USUAL, CLOSE]}) as server:
        send(server)
        with pytest.raises(smtplib.SMTPDataError):
            send(server)
        for _ in range(2):
            with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
                send(server)
    assert [(mail.kept, mail.acknowledged) for mail in server.emails] == [(True, True), (False, False), (True, False)]
    assert [mail.content for mail in server.emails] == server.received
    (fragment,) = server.fragments
    assert fragment.startswith(b"From: app@example.com\r\n")


def test_it_tells_what_came_in_clear(authority: Authority) -> None:
    with ScriptedServer(tls_context=authority.good) as server:
        whole_session(server, authority, timeout=5)
    assert server.in_clear == ["CONNECT", "EHLO", "STARTTLS", "HANDSHAKE"]


def test_a_self_signed_certificate_is_refused_as_one(authority: Authority) -> None:
    with ScriptedServer(tls_context=authority.self_signed) as server, client(server) as smtp:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self.signed certificate"):
            smtp.starttls(context=authority.client_context())
