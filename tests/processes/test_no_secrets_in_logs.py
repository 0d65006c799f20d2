"""No token, password or address is printed or logged, whatever is done with a valid link."""

import json
import re
import socket
import urllib.parse

import pytest

from tests.support.app import MakeApp, add_user
from tests.support.clock import PATIENCE
from tests.support.instance import Instance, Serve
from tests.support.outbox import request_email
from tests.support.pages import link_in, path_of
from tests.support.servers import Browser, FlaskRun, Gunicorn, Server
from tests.support.smtp import SMTPServer

ADDRESS = "grace.hopper@example.com"
FIRST, SECOND = "seven green lanterns drift", "quiet rivers under old bridges"
WRONG = "not the password at all"
COMPLETE = "/password-reset-complete/"
LOUD = ("--access-logfile", "-", "--log-level", "debug")


@pytest.mark.parametrize(
    ("options", "log_format"), [((), "text"), (("--debug",), "text"), ((), "json")], ids=["plain", "debug", "json"]
)
def test_flask_run_prints_no_secret_from_registration_to_reset(instance: Instance, serve: Serve, options, log_format):
    server = serve(FlaskRun, *options, clean_log=False, LOG_FORMAT=log_format)
    tokens = whole_story(server, instance, instance.wait_for_emails)
    server.press_ctrl_c()
    server.wait()
    assert_no_secrets(server, tokens)
    if log_format == "json":
        assert_json_lines(server, {"pwreset.outbox.delivery", "werkzeug", "pwreset"})


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_gunicorn_prints_no_secret_from_registration_to_reset(instance: Instance, serve: Serve, log_format):
    with SMTPServer() as mail_server:

        def wait_for_email(count):
            return mail_server.wait_for(count, timeout=PATIENCE)[-1].message

        server = serve(Gunicorn, *LOUD, clean_log=False, EMAIL_PORT=mail_server.port, LOG_FORMAT=log_format)
        tokens = whole_story(server, instance, wait_for_email)
        server.terminate()
        server.wait()
    assert_no_secrets(server, tokens)
    assert Gunicorn.secret_key not in server.log()
    if log_format == "json":
        assert_json_lines(server, {"pwreset.outbox.delivery", "gunicorn.access", "gunicorn.error", "pwreset"})


def test_a_worker_of_its_own_prints_json_without_a_secret(make_app: MakeApp, instance: Instance):
    app = make_app()
    add_user(app, ADDRESS, FIRST)
    with SMTPServer() as mail_server:
        relay = {"EMAIL_HOST": "localhost", "EMAIL_PORT": mail_server.port, "EMAIL_FROM": "accounts@example.com"}
        request_email(app, ADDRESS, "password_reset")
        drained = instance.run("-m", "flask", "outbox", "drain", LOG_FORMAT="json", **relay)
        token = link_in(mail_server.wait_for(1)[0].message).rpartition("/")[2]
    *lines, last = drained.stdout.splitlines() + drained.stderr.splitlines()
    assert token not in drained.stdout + drained.stderr
    assert ADDRESS not in drained.stdout + drained.stderr
    assert "1 of 1 processed." in (lines[0], last)
    (logged,) = (json.loads(line) for line in (*lines, last) if line.startswith("{"))
    assert (logged["level"], logged["email_id"], logged["kind"]) == ("INFO", 1, "password_reset")


def whole_story(server, instance, wait_for_email):
    """Register, choose a password, log in, reset it, with every kind of odd request between; return the tokens."""
    grace = Browser(server)
    assert grace.submit("/register/", email=ADDRESS).status == 302
    invitation = path_of(link_in(wait_for_email(1)))
    assert grace.submit(invitation, new_password1=FIRST, new_password2=FIRST).headers["Location"] == COMPLETE
    assert grace.submit("/login/", email=ADDRESS, password=WRONG).status == 200
    assert grace.submit("/login/", email=ADDRESS, password=FIRST).headers["Location"] == "/account/"
    assert grace.submit("/logout/").status == 302

    assert grace.submit("/password-reset/", email=ADDRESS).status == 302
    link = path_of(link_in(wait_for_email(2)))
    instance.wait_until_all_is_sent()
    do_odd_things_with(link, server, instance)
    assert grace.submit(link, new_password1="short", new_password2="other").status == 200
    assert grace.submit(link, new_password1=SECOND, new_password2=SECOND).headers["Location"] == COMPLETE
    assert grace.get(link).status == 200
    wait_for_email(3)
    return [path.rpartition("/")[2] for path in (invitation, link)]


def do_odd_things_with(link, server, instance):
    token = link.rpartition("/")[2]
    everything_escaped = "/" + "".join(f"%{ord(letter):02x}" for letter in link[1:])
    visitor = Browser(server)
    for path in (link + "/", link.replace("-", "%2D"), link.replace(".", "%2e"), everything_escaped):
        assert visitor.get(path).status == 200
    for path in (link + "/more", f"/elsewhere/{token}", f"/?token={token}", link.upper(), "/" + link):
        visitor.get(path)
    assert visitor.send("HEAD", link, {}).status == 302
    assert visitor.send("POST", link, {}, b"new_password1=x").status == 400
    assert visitor.send("PUT", link, {}, b"").status == 405
    referer = server.url + link
    assert visitor.get("/", Referer=referer).status == 200
    assert visitor.get("/no-such-page", Referer=referer, **{"User-Agent": referer}).status == 404
    assert b" 400 " in raw(server, f"GET {link} HTTP/1.1 and more\r\n\r\n")
    raw(server, f"GET {link} HTTP/1.1\r\nA header that is none {link}\r\n\r\n")
    raw(server, f"{link} GET\r\n\r\n")
    ((last_login,),) = instance.query("SELECT last_login FROM users")
    instance.query("UPDATE users SET last_login = 'infinity'")  # PostgreSQL stores it, and SQLite anything
    assert visitor.send("GET", link, {}).status == 500
    instance.query("UPDATE users SET last_login = ?", last_login)


def raw(server: Server, request: str) -> bytes:
    """Send what no client would, and return all that is answered."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
        line.sendall(request.encode())
        line.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: line.recv(65536), b""))


def assert_json_lines(server: Server, loggers: set[str]) -> None:
    """Every line is a JSON object with a time, a level and a logger, but for what is printed before there is a log."""
    logged = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    others = [line for line in server.log().splitlines() if not line.startswith("{")]
    assert all(re.match(r" \* |Press|\x1b", line) for line in others), others
    assert all({"time", "level", "logger", "process", "message"} <= line.keys() for line in logged)
    assert loggers <= {line["logger"] for line in logged}


def assert_no_secrets(server: Server, tokens: list[str]) -> None:
    assert len(set(tokens)) == 2
    printed = server.log()
    assert "password-reset-confirm/[redacted]" in printed  # or nothing was logged at all
    assert "/set-password" in printed
    assert "Traceback" in printed  # of the crash
    readable = printed + urllib.parse.unquote(printed)
    for secret in (*tokens, *(token.partition(".")[2] for token in tokens), FIRST, SECOND, WRONG, ADDRESS):
        assert secret not in readable
    for path in server.folder.rglob("*"):
        if path.is_file() and path.parent.name != "mailbox":
            assert not any(token.encode() in path.read_bytes() for token in tokens), path
