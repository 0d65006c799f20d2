"""No token, password or address on the console or in a log, whatever is done with a live link."""

import socket
import urllib.parse

import pytest

from tests.conftest import link_in, path_of
from tests.processes.conftest import Instance, Serve
from tests.processes.servers import PATIENCE, Browser, FlaskRun, Gunicorn, Server
from tests.smtp.servers import SMTPServer

ADDRESS = "grace.hopper@example.com"
FIRST, SECOND = "seven green lanterns drift", "quiet rivers under old bridges"
WRONG = "not the password at all"
COMPLETE = "/password-reset-complete/"
LOUD = ("--access-logfile", "-", "--log-level", "debug")


@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["plain", "debug"])
def test_flask_run_prints_no_secret_during_the_whole_story(instance: Instance, serve: Serve, options):
    server = serve(FlaskRun, *options, clean_log=False)
    tokens = whole_story(server, instance, instance.wait_for_mail)
    server.press_ctrl_c()
    server.wait()
    assert_no_secrets(server, tokens)


def test_gunicorn_prints_no_secret_during_the_whole_story(instance: Instance, serve: Serve):
    with SMTPServer() as mail_server:

        def wait_for_mail(count):
            return mail_server.wait_for(count, timeout=PATIENCE)[-1].message

        server = serve(Gunicorn, *LOUD, clean_log=False, EMAIL_PORT=mail_server.port)
        tokens = whole_story(server, instance, wait_for_mail)
        server.terminate()
        server.wait()
    assert_no_secrets(server, tokens)
    assert Gunicorn.secret_key not in server.log()


def whole_story(server, instance, wait_for_mail):
    """Register, choose a password, log in, reset it, with every kind of odd request between; return the tokens."""
    grace = Browser(server)
    assert grace.submit("/register/", email=ADDRESS).status == 302
    invitation = path_of(link_in(wait_for_mail(1)))
    assert grace.submit(invitation, new_password1=FIRST, new_password2=FIRST).headers["Location"] == COMPLETE
    assert grace.submit("/login/", email=ADDRESS, password=WRONG).status == 200
    assert grace.submit("/login/", email=ADDRESS, password=FIRST).headers["Location"] == "/account/"
    assert grace.submit("/logout/").status == 302

    assert grace.submit("/password-reset/", email=ADDRESS).status == 302
    link = path_of(link_in(wait_for_mail(2)))
    instance.wait_until_all_is_sent()
    do_odd_things_with(link, server, instance)
    assert grace.submit(link, new_password1="short", new_password2="other").status == 200
    assert grace.submit(link, new_password1=SECOND, new_password2=SECOND).headers["Location"] == COMPLETE
    assert grace.get(link).status == 200
    wait_for_mail(3)
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
