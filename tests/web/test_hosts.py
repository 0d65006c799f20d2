"""Which Host headers the application answers, and which origins may send its forms."""

from typing import Any

import pytest
from flask import Flask

from pwreset.extensions import mail
from tests.support.app import Inbox, MakeApp, Visitor
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token, link_in
from tests.support.public_mode import IN_PUBLIC, PUBLIC_HOST, PUBLIC_URL, get, public_visitor

pytestmark = on_sqlite  # tests/attacks has what reaches a database


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost:5000",
        "127.0.0.1",
        "127.0.0.1:65535",
        "127.1.2.3",
        "127.1.2.3:8080",
        "[::1]",
        "[::1]:5000",
    ],
)
def test_local_mode_answers_every_loopback_name_on_any_port(app: Flask, host: str) -> None:
    assert get(app, "/login/", host).status_code == 200


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1", "[::]", "localhost.evil.example", "my-laptop"])
def test_local_mode_tells_other_hosts_about_public_url(app: Flask, host: str) -> None:
    page = get(app, "/login/", host)
    assert page.status_code == 400
    assert "PUBLIC_URL=https://accounts.example.com" in page.text


MALFORMED = [
    "",
    " ",
    "a b",
    '"',
    "'",
    "<script>",
    "127.0.0.1@evil.example",
    "evil.example@127.0.0.1",
    "user:pass@localhost",
    "127.0.0.1:81:81",
    "127.0.0.1::80",
    "localhost:http",
    "localhost:-1",
    "localhost:99999",
    "localhost:²",
    "localhost:٣",
    "löcalhost",
    "ｌocalhost",
    "localhost。",
    "localhost/",
    "localhost?",
    "localhost#",
    "localhost\\",
    "localhost,evil.example",
    "localhost%00",
    "[::1",
    "::1]",
    "[[::1]]",
    "[::1]evil.example",
    "[nonsense]",
    "x" * 5000,
]


@pytest.mark.parametrize("host", MALFORMED)
def test_a_malformed_host_is_400_in_local_mode(app: Flask, host: str) -> None:
    assert get(app, "/login/", host).status_code == 400


@pytest.mark.parametrize("host", MALFORMED)
def test_a_malformed_host_is_400_in_public_mode(public: Flask, host: str) -> None:
    assert get(public, "/login/", host).status_code == 400


def test_an_unknown_host_puts_nothing_into_the_outbox(app: Flask, visitor: Visitor, inbox: Inbox) -> None:
    fields = {"email": "alice@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    answer = visitor.client.post("/password-reset/", data=fields, headers={"Host": "evil.example"})
    assert (answer.status_code, inbox.waiting()) == (400, 0)


def test_an_unknown_host_is_not_repeated_on_the_page(app: Flask) -> None:
    assert "evil.example" not in get(app, "/", "evil.example").text


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Host", "Forwarded", "X-Original-Host"])
def test_no_other_header_chooses_the_links_host(
    app: Flask, alice: int, visitor: Visitor, inbox: Inbox, header: str
) -> None:
    token = csrf_token(visitor.get("/password-reset/"))
    fields = {"email": "alice@example.com", "csrf_token": token}
    visitor.client.post("/password-reset/", data=fields, headers={header: "host=evil.example"})
    assert link_in(inbox.deliver_one()).startswith("http://localhost/password-reset-confirm/")


# --- Host, public mode


@pytest.mark.parametrize("host", [PUBLIC_HOST, PUBLIC_HOST.upper(), f"{PUBLIC_HOST}:443", f"{PUBLIC_HOST}:8000"])
def test_public_mode_answers_its_own_host_whatever_port_a_proxy_passes(public: Flask, host: str) -> None:
    assert get(public, "/login/", host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        f"{PUBLIC_HOST}:8443:443",
        f"www.{PUBLIC_HOST}",
        f"{PUBLIC_HOST}.",
        f"{PUBLIC_HOST}.evil.example",
        "localhost",
        "127.0.0.1",
    ],
)
def test_public_mode_answers_no_other_host(public: Flask, host: str) -> None:
    page = get(public, "/login/", host)
    assert page.status_code == 400
    assert "PUBLIC_URL" not in page.text


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", PUBLIC_HOST])
def test_the_health_check_answers_loopback_names_too(public: Flask, host: str) -> None:
    assert get(public, "/healthz", host).json == {"status": "ok"}


def test_the_health_check_answers_no_other_host(public: Flask) -> None:
    assert get(public, "/healthz", "example.com").status_code == 400


@pytest.mark.parametrize("path", ["/healthz/", "/healthz/x", "/HEALTHZ", "/login/?/healthz"])
def test_only_the_health_check_itself_answers_loopback_names(public: Flask, path: str) -> None:
    client = public.test_client()
    environ = {"PATH_INFO": path.partition("?")[0]}
    answer = client.get("/", headers={"Host": "127.0.0.1"}, environ_overrides=environ)
    assert answer.status_code == 400


def test_links_have_the_port_of_the_public_url_and_not_of_the_request(make_app: MakeApp, alice: int) -> None:
    app = make_app(**IN_PUBLIC | {"PUBLIC_URL": f"https://{PUBLIC_HOST}:8443"}, TESTING=True)
    public_visitor(app).request_reset()
    with mail.record_messages() as sent:
        Inbox(app).deliver()
    assert f"\nhttps://{PUBLIC_HOST}:8443/password-reset-confirm/" in sent[0].body


def test_a_public_ipv6_host_is_answered(make_app: MakeApp) -> None:
    app = make_app(**IN_PUBLIC | {"PUBLIC_URL": "https://[2001:db8::7]:8443"})
    assert get(app, "/login/", "[2001:DB8::7]:8443").status_code == 200


def post_with(visitor: Visitor, **headers: str) -> Any:
    """Ask for a reset with a right CSRF token and these headers."""
    fields = {"email": "alice@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    return visitor.client.post("/password-reset/", data=fields, headers=headers)


@pytest.mark.parametrize("origin", ["http://localhost", "HTTP://LOCALHOST"])
def test_a_form_of_this_site_is_taken(visitor: Visitor, origin: str) -> None:
    assert post_with(visitor, Origin=origin).status_code == 302


def test_a_form_without_an_origin_is_taken(visitor: Visitor) -> None:
    assert post_with(visitor).status_code == 302


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://localhost",
        "http://localhost:5001",
        "http://localhost.evil.example",
        "http://evil.example, http://localhost",
        "http://localhost/",
        "localhost",
    ],
)
def test_a_form_of_another_site_is_refused(visitor: Visitor, inbox: Inbox, origin: str) -> None:
    assert post_with(visitor, Origin=origin).status_code == 400
    assert inbox.waiting() == 0


def test_public_mode_takes_its_own_origin(public: Flask) -> None:
    assert post_with(public_visitor(public), Origin=PUBLIC_URL).status_code == 302


@pytest.mark.parametrize(
    "origin", [f"http://{PUBLIC_HOST}", f"https://{PUBLIC_HOST}:8443", "https://example.com", "null"]
)
def test_public_mode_refuses_other_origins(public: Flask, origin: str) -> None:
    assert post_with(public_visitor(public), Origin=origin).status_code == 400


def test_a_form_without_a_referer_is_taken_over_https(public: Flask) -> None:
    assert post_with(public_visitor(public)).status_code == 302


def test_a_proxy_that_speaks_http_to_the_application_breaks_no_form(public: Flask) -> None:
    visitor = public_visitor(public)
    fields = {"email": "a@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    cookie = visitor.client.get_cookie("__Host-pwreset_session", domain=PUBLIC_HOST)
    headers = {"Origin": PUBLIC_URL, "Cookie": f"__Host-pwreset_session={cookie.value}"}
    inner = public.test_client(use_cookies=False)
    answer = inner.post("/password-reset/", data=fields, headers=headers, base_url=f"http://{PUBLIC_HOST}")
    assert answer.status_code == 302
