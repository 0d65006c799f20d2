"""deploy/nginx.conf in real nginx before real gunicorn: a complete reset over TLS, and forged headers are ignored."""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from urllib.parse import unquote

import pytest

from pwreset.web.security import MAXIMUM_BODY
from tests.support.app import MakeApp, add_user
from tests.support.clock import PATIENCE
from tests.support.databases import on_sqlite
from tests.support.instance import Instance, Serve
from tests.support.nginx import NAME, Nginx, Remote, client_context
from tests.support.pages import link_in, path_of, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.servers import Gunicorn, Page
from tests.support.smtp import SMTPServer

pytestmark = on_sqlite  # what a proxy says, and what is believed of it, is the same before both
ALICE = "alice@example.com"
ONE_PROCESS = ("--workers", "1")  # each counts for itself
COMPLETE = "/password-reset-complete/"
LOUD = ("--access-logfile", "-", "--log-level", "debug")
PAGES_OF_LINKS = ("password-reset-confirm", "password-reset-cancel", "account-secure")
FORGED = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "81",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Ssl": "off",
    "X-Real-IP": "192.0.2.2",
    "Forwarded": "for=192.0.2.3;host=evil.example;proto=http",
    "Script_Name": "/evil",
}
APPENDING = {
    "X-Forwarded-For $remote_addr;": "X-Forwarded-For $proxy_add_x_forwarded_for;",
    "X-Forwarded-Proto $scheme;": 'X-Forwarded-Proto "$http_x_forwarded_proto, $scheme";',
}


class Site:
    """pwreset as a team puts it on the internet: a mail server, gunicorn, and nginx before it."""

    def __init__(self, serve: Serve, mail_server: SMTPServer, **settings: object) -> None:
        public = {"PUBLIC_URL": f"https://{NAME}", "TRUSTED_PROXIES": 1, "EMAIL_PORT": mail_server.port}
        self._serve, self.mail_server = serve, mail_server
        self.gunicorn = serve(Gunicorn, *ONE_PROCESS, *LOUD, **public | settings)
        self.nginx = self.front()

    def front(self, changes: dict[str, str] | None = None, upstream: int | None = None) -> Nginx:
        """Start nginx, with more changes to the file, before gunicorn or before what has another port."""
        return self._serve(Nginx, upstream or self.gunicorn.port, changes)

    def mail(self, number: int) -> EmailMessage:
        """Wait for an email, counted from 1, and return it."""
        return self.mail_server.wait_for(number, timeout=PATIENCE)[number - 1].message


OpenSite = Callable[..., Site]


@pytest.fixture
def open_site(instance: Instance, serve: Serve) -> Iterator[OpenSite]:
    """Return a function that starts a site with settings of its own."""
    with SMTPServer() as mail_server:
        yield lambda **settings: Site(serve, mail_server, **settings)


def reset(person: Remote, site: Site) -> str:
    """Reset the password from the form to a login with the new one, and return the link."""
    assert person.submit("/password-reset/", email=ALICE).headers["Location"] == "/password-reset/done/"
    link = link_in(site.mail(1))
    chosen = person.submit(path_of(link), new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    assert chosen.headers["Location"] == COMPLETE
    assert person.submit("/login/", email=ALICE, password=NEW_PASSWORD).headers["Location"] == "/account/"
    return link


def addresses(person: Remote) -> set[str]:
    """Return the addresses that the account page names."""
    return set(re.findall(r"· from ([^<\s]+)", person.get("/account/").text))


def limited_after(people: list[Remote]) -> int:
    """Return how many forms are accepted before one is rejected, sent by these people one after the other.

    It is one more than the limit if a minute ends meanwhile.
    """
    for number, person in enumerate(people):
        if person.submit("/password-reset/", email="nobody@example.com").status == 429:
            return number
    return len(people)


def assert_secure(page: Page) -> None:
    (cookie,) = page.headers.get_all("Set-Cookie")
    name, *attributes = re.split("; ?", cookie)
    assert name.startswith("__Host-pwreset_session=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} == set(attributes)


@pytest.mark.parametrize("forged", [{}, FORGED], ids=["honest", "forged"])
def test_a_complete_reset_works_over_tls_and_headers_that_a_client_sends_change_nothing(
    make_app: MakeApp, open_site: OpenSite, forged: dict[str, str]
):
    add_user(make_app(), ALICE, PASSWORD)
    site = open_site()
    alice = Remote(site.nginx, "127.0.0.9", forged)
    assert_secure(alice.get("/login/"))
    link = reset(alice, site)
    assert link.startswith(f"https://{NAME}/password-reset-confirm/")
    assert "evil" not in text_of(site.mail(1))
    assert addresses(alice) == {"127.0.0.9"}
    assert alice.send("GET", "/login", {}).headers["Location"] == "/login/"
    page = alice.get("/")
    assert page.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    assert len(page.headers.get_all("Content-Security-Policy")) == 1


def test_a_client_can_neither_escape_its_limit_nor_use_up_that_of_another(open_site: OpenSite):
    site = open_site()
    liars = [
        Remote(site.nginx, "127.0.0.9", FORGED | {"X-Forwarded-For": claim, "X-Real-IP": claim})
        for claim in ("127.0.0.10", "192.0.2.1, 127.0.0.10", '"', "") * 6
    ]
    assert limited_after(liars) in {20, 21}
    assert limited_after([Remote(site.nginx, "127.0.0.10")] * 22) in {20, 21}


def test_behind_a_second_proxy_the_client_is_still_the_client(make_app: MakeApp, open_site: OpenSite):
    add_user(make_app(), ALICE, PASSWORD)
    site = open_site(TRUSTED_PROXIES=2)
    inner = site.front(APPENDING)
    edge = site.front({"http://pwreset": "https://pwreset"}, upstream=inner.port)
    alice = Remote(edge, "127.0.0.9", FORGED)
    reset(alice, site)
    assert addresses(alice) == {"127.0.0.9"}
    assert_secure(Remote(edge, "127.0.0.9", FORGED).get("/login/"))
    assert alice.send("GET", "/login", {}).headers["Location"] == "/login/"
    assert limited_after([Remote(edge, "127.0.0.9", FORGED | {"X-Forwarded-For": '"'})] * 22) in {19, 20}
    assert limited_after([Remote(edge, "127.0.0.10")] * 22) in {20, 21}


def test_what_a_client_says_before_the_word_of_an_appending_proxy_does_not_count(
    make_app: MakeApp, open_site: OpenSite
):
    add_user(make_app(), ALICE, PASSWORD)
    site = open_site()
    appending = site.front(APPENDING)
    for claim in ("192.0.2.1", '"', '192.0.2.1, "', '"192.0.2.1', "\\", ",,"):
        liar = Remote(appending, "127.0.0.9", FORGED | {"X-Forwarded-For": claim, "X-Forwarded-Proto": claim})
        assert liar.submit("/login/", email=ALICE, password=PASSWORD).headers["Location"] == "/account/"
        assert addresses(liar) == {"127.0.0.9"}
        assert liar.send("GET", "/login", {}).headers["Location"] == "/login/"


def test_without_trusted_proxies_gunicorn_believes_no_header(make_app: MakeApp, instance: Instance, serve: Serve):
    add_user(make_app(), ALICE, PASSWORD)
    forged = FORGED | {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on"}
    with SMTPServer() as mail_server:
        server = serve(Gunicorn, *ONE_PROCESS, EMAIL_PORT=mail_server.port, TRUSTED_PROXIES=0)
        alice = Remote(server, "127.0.0.9", forged)
        for liar in (alice, Remote(server, "127.0.0.1", forged)):
            assert "Secure" not in liar.get("/login/").headers["Set-Cookie"]
            assert liar.send("GET", "/login", {}).headers["Location"] == "/login/"
        alice.submit("/password-reset/", email=ALICE)
        (mail,) = mail_server.wait_for(1, timeout=PATIENCE)
        assert link_in(mail.message).startswith(f"{server.url}/password-reset-confirm/")
        assert alice.submit("/login/", email=ALICE, password=PASSWORD).headers["Location"] == "/account/"
        assert addresses(alice) == {"127.0.0.9"}
        liars = [Remote(server, "127.0.0.9", forged | {"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(22)]
        assert limited_after(liars) in {19, 20}
        assert limited_after([Remote(server, "127.0.0.10")] * 22) in {20, 21}


def test_a_port_in_the_public_url_stays_in_every_link(make_app: MakeApp, instance: Instance, serve: Serve):
    add_user(make_app(), ALICE, PASSWORD)
    with SMTPServer() as mail_server:
        server = serve(Gunicorn, EMAIL_PORT=mail_server.port, TRUSTED_PROXIES=1, PUBLIC_URL=f"https://{NAME}:8443")
        nginx = serve(Nginx, server.port)
        nginx.url += ":8443"
        alice = Remote(nginx, headers={"Origin": nginx.url})
        assert alice.send("GET", "/login", {}).headers["Location"] == "/login/"
        assert alice.submit("/password-reset/", email=ALICE).status == 302
        (mail,) = mail_server.wait_for(1, timeout=PATIENCE)
        assert link_in(mail.message).startswith(f"{nginx.url}/password-reset-confirm/")


def test_plain_http_leads_to_the_same_page_over_tls_and_other_names_are_not_served(open_site: OpenSite):
    nginx = open_site().nginx
    for host in (NAME, "evil.example"):
        answer = plain(nginx.plain_port, f"GET /login/?next=/account/ HTTP/1.1\r\nHost: {host}\r\n\r\n")
        assert answer.startswith("HTTP/1.1 301 ")
        assert f"\r\nLocation: https://{NAME}/login/?next=/account/\r\n" in answer
    challenge = f"GET /.well-known/acme-challenge/none HTTP/1.1\r\nHost: {NAME}\r\n\r\n"
    assert plain(nginx.plain_port, challenge).startswith("HTTP/1.1 404 ")
    for target, host in (("/login/", "evil.example"), (f"https://{NAME}/login/", "evil.example"), ("/login/", "")):
        answer = secure(nginx, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 400 ")
    assert secure(nginx, "GET /login/ HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 400 ")


def test_healthz_is_passed_on_and_metrics_are_not(open_site: OpenSite):
    site = open_site()
    visitor = Remote(site.nginx)
    assert visitor.get("/healthz").status == 200
    for path in ("/metrics", "//metrics", "/%6detrics", "/x/../metrics", "/metrics?x=1", "/metrics/"):
        assert visitor.send("GET", path, {}).status == 404
    assert "metrics" not in site.gunicorn.log()
    assert "/healthz" not in site.nginx.logged()


def test_no_log_of_nginx_or_gunicorn_holds_a_key_to_an_account_also_while_gunicorn_is_down(
    make_app: MakeApp, open_site: OpenSite
):
    add_user(make_app(), ALICE, PASSWORD)
    site = open_site()
    alice = Remote(site.nginx)
    alice.submit("/password-reset/", email=ALICE)
    link = path_of(link_in(site.mail(1)))
    links = [link.replace(PAGES_OF_LINKS[0], page) for page in PAGES_OF_LINKS]
    do_odd_things_with(links, site)
    chosen = alice.submit(link, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    assert chosen.headers["Location"] == COMPLETE
    site.gunicorn.terminate()
    site.gunicorn.wait()
    # What refuses is an error to nginx, what is not there is critical.
    astray = site.front({f"server 127.0.0.1:{site.gunicorn.port};": "server unix:/nowhere;"})
    for nginx in (site.nginx, astray):
        for path in (*links, "/healthz"):
            assert Remote(nginx).send("GET", path, {}).status == 502
        referer = {"Referer": f"https://{NAME}{link}"}
        assert Remote(nginx).send("GET", "/static/pwreset.css", referer).status == 502
    logged = site.nginx.logged() + astray.logged()
    for page in PAGES_OF_LINKS:
        assert re.search(rf'"GET /{page}/\[redacted\] HTTP/1.1" (200|302|404) \d+ "-" "-" \1 [\d.]+\n', logged)
        assert re.search(rf'"GET /{page}/\[redacted\] HTTP/1.1" 502 \d+ "-" "-" 502 [\d.]+\n', logged)
    for reason in ("Connection refused", "No such file"):  # for /healthz, so that an operator finds the reason
        assert logged.count(reason) == 1
    for text in (logged, site.gunicorn.log()):
        assert len(text) > 1000
        assert link.rpartition(".")[2].lower() not in unquote(text).lower()


def test_a_body_over_the_limit_is_refused_and_one_within_is_kept_in_memory(open_site: OpenSite):
    site = open_site()
    visitor = Remote(site.nginx)
    (site.nginx.folder / "body").rmdir()  # nothing can be written there
    for length, status in ((MAXIMUM_BODY, 400), (MAXIMUM_BODY + 1, 413), (10_000_000, 413)):
        head = f"POST /login/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        answer = secure(site.nginx, head + "x" * min(length, MAXIMUM_BODY))
        assert answer.startswith(f"HTTP/1.1 {status} ")
    chunk = f"{MAXIMUM_BODY // 2:x}\r\n{'x' * (MAXIMUM_BODY // 2)}\r\n"
    for chunks, status in ((1, 400), (2, 400), (3, 413)):
        head = f"POST /login/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert secure(site.nginx, head + chunk * chunks + "0\r\n\r\n").startswith(f"HTTP/1.1 {status} ")
    assert visitor.get("/login/").status == 200


def test_slow_clients_do_not_hold_up_others(open_site: OpenSite):
    site = open_site()
    head = f"POST /password-reset/ HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1000\r\n\r\nemail="
    with ExitStack() as held:
        for _ in range(40):  # gunicorn has 8 threads
            line = held.enter_context(connection(site.nginx))
            line.sendall(head.encode())
        before = time.monotonic()
        for _ in range(5):
            assert Remote(site.nginx).get("/login/").status == 200
        assert time.monotonic() - before < 7  # nginx gives the slow ones up after 10
        assert "POST" not in site.gunicorn.log()


def do_odd_things_with(links: list[str], site: Site) -> None:
    """Send requests with a live link wherever a log might take it from; none of them uses it up."""
    visitor = Remote(site.nginx)
    for link in links:
        token = link.rpartition("/")[2]
        escaped = "/" + "".join(f"%{ord(letter):02x}" for letter in link[1:])
        odd = (link + "/", "/" + link, link.replace("-", "%2D"), link.upper(), escaped, f"/x/{token}", f"/?t={token}")
        for path in odd:
            visitor.send("GET", path, {})
        assert visitor.send("HEAD", link, {}).status in {200, 302, 404}
        visitor.send("GET", "/static/pwreset.css", {"Referer": f"https://{NAME}{link}"})
        visitor.send("GET", "/no-such-page", {"Referer": f"https://{NAME}{link}", "User-Agent": link})
        start = f"{link} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n"
        body = "Content-Length: 10000000\r\n\r\n"
        assert secure(site.nginx, f"POST {start}{body}").startswith("HTTP/1.1 413 ")
        assert plain(site.nginx.plain_port, f"POST {start}{body}").startswith("HTTP/1.1 413 ")
        assert plain(site.nginx.plain_port, f"GET {start}\r\n").startswith("HTTP/1.1 301 ")
        assert plain(site.nginx.port, f"GET {start}\r\n").startswith("HTTP/1.1 400 ")  # no TLS
        for rest in ("A header that is none", "X: \x01", "Host: b"):
            secure(site.nginx, f"GET {start}{rest}\r\n\r\n")
        for line in (f"GET {link} HTTP/1.1 and more", f"{link} GET", f"GET {link} HTTP/9.9"):
            secure(site.nginx, f"{line}\r\n\r\n")
        with connection(site.nginx) as left:
            left.sendall(f"POST {start}Content-Length: 9\r\n\r\nhalf".encode())


def connection(nginx: Nginx) -> ssl.SSLSocket:
    """Connect over TLS."""
    line = socket.create_connection(("127.0.0.1", nginx.port), PATIENCE)
    return client_context().wrap_socket(line, server_hostname=NAME)


def secure(nginx: Nginx, request: str) -> str:
    """Send over TLS what no client would, and return the head of the answer."""
    with connection(nginx) as line:
        return exchange(line, request)


def plain(port: int, request: str) -> str:
    """Send without TLS, and return the head of the answer."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
        return exchange(line, request)


def exchange(line: socket.socket, request: str) -> str:
    line.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer and (more := line.recv(65536)):
        answer += more
    return answer.decode(errors="replace").partition("\r\n\r\n")[0] + "\r\n"
