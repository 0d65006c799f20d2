"""What every request must pass and every response carries: hosts, origins, bodies, limits, headers, cookies."""

import re
from typing import Any

import pytest
from flask import Flask, redirect
from flask.testing import FlaskClient

from pwreset.extensions import mail
from pwreset.request_info import current_request_info
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token, link_in
from tests.support.passwords import PASSWORD

pytestmark = on_sqlite  # tests/attacks has what reaches a database
KEY = "k3Yl-9aQzX7wPvT2bNcR5dMfG8hJsL4u6E0iOoUy"
OLD_KEY = "z8Xw-1bVqY6tRmK3nCfP9jHgD5sAlE7uI2oW4yTe"
OLDEST_KEY = "p0Oi-9uYtR8eWqA7sDfG6hJkL5zXcV4bNm3QwErT"
HOST = "accounts.example.com"
PUBLIC = {
    "PUBLIC_URL": f"https://{HOST}",
    "SECRET_KEY": KEY,
    "EMAIL_HOST": "localhost",
    "EMAIL_FROM": "accounts@example.com",
}
THERE = f"https://{HOST}"
PAGES = ["/", "/login/", "/register/", "/register/done/", "/password-reset/", "/password-reset/done/", "/logout/"]


class PublicClient(FlaskClient):
    """A browser at the public host."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, **{"base_url": THERE, **kwargs})


@pytest.fixture
def public(make_app: MakeApp) -> Flask:
    """Return an application in public mode."""
    return make_app(**PUBLIC)


def public_visitor(app: Flask) -> Visitor:
    """Return somebody whose browser is at the public host."""
    return Visitor(app, PublicClient(app, app.response_class))


def get(app: Flask, path: str, host: str, **kwargs: Any) -> Any:
    """Open a path under a Host header."""
    return app.test_client().get(path, headers={"Host": host}, **kwargs)


# --- Host, local mode


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


@pytest.mark.parametrize("host", [HOST, HOST.upper(), f"{HOST}:443", f"{HOST}:8000"])
def test_public_mode_answers_its_own_host_whatever_port_a_proxy_passes(public: Flask, host: str) -> None:
    assert get(public, "/login/", host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        f"{HOST}:8443:443",
        f"www.{HOST}",
        f"{HOST}.",
        f"{HOST}.evil.example",
        "localhost",
        "127.0.0.1",
    ],
)
def test_public_mode_answers_no_other_host(public: Flask, host: str) -> None:
    page = get(public, "/login/", host)
    assert page.status_code == 400
    assert "PUBLIC_URL" not in page.text


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", HOST])
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
    app = make_app(**PUBLIC | {"PUBLIC_URL": f"https://{HOST}:8443"}, TESTING=True)
    public_visitor(app).ask_for_reset()
    with mail.record_messages() as sent:
        Inbox(app).deliver()
    assert f"\nhttps://{HOST}:8443/password-reset-confirm/" in sent[0].body


def test_a_public_ipv6_host_is_answered(make_app: MakeApp) -> None:
    app = make_app(**PUBLIC | {"PUBLIC_URL": "https://[2001:db8::7]:8443"})
    assert get(app, "/login/", "[2001:DB8::7]:8443").status_code == 200


# --- Origin


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
    assert post_with(public_visitor(public), Origin=THERE).status_code == 302


@pytest.mark.parametrize("origin", [f"http://{HOST}", f"https://{HOST}:8443", "https://example.com", "null"])
def test_public_mode_refuses_other_origins(public: Flask, origin: str) -> None:
    assert post_with(public_visitor(public), Origin=origin).status_code == 400


def test_a_form_without_a_referer_is_taken_over_https(public: Flask) -> None:
    assert post_with(public_visitor(public)).status_code == 302


def test_a_proxy_that_speaks_http_to_the_application_breaks_no_form(public: Flask) -> None:
    visitor = public_visitor(public)
    fields = {"email": "a@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    cookie = visitor.client.get_cookie("__Host-pwreset_session", domain=HOST)
    headers = {"Origin": THERE, "Cookie": f"__Host-pwreset_session={cookie.value}"}
    inner = public.test_client(use_cookies=False)
    answer = inner.post("/password-reset/", data=fields, headers=headers, base_url=f"http://{HOST}")
    assert answer.status_code == 302


# --- headers

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
EVERYWHERE = [
    *PAGES,
    "/nothing-here",
    "/account/",
    "/account/sign-out-everywhere/",
    "/login",
    "/healthz",
    "/mailbox/",
    "/static/pico.min.css",
    "/static/nothing",
    "/password-reset-confirm/MQ/abc-def",
]


@pytest.mark.parametrize("path", EVERYWHERE)
def test_every_answer_carries_the_headers(visitor: Visitor, path: str) -> None:
    headers = visitor.get(path, buffered=True).headers
    assert {name: headers.get(name) for name in FIXED} == FIXED
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(
        policy.split("; ")
    )


def test_the_page_for_an_unknown_host_carries_the_headers(app: Flask) -> None:
    headers = get(app, "/", "evil.example").headers
    assert {name: headers.get(name) for name in FIXED} == FIXED
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_body_carries_the_headers(visitor: Visitor, status: int) -> None:
    body = "email=" + "x" * (70000 if status == 413 else 1)
    answer = visitor.client.post("/password-reset/", data=body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in FIXED} == FIXED


@pytest.mark.parametrize("path", [path for path in EVERYWHERE if not path.startswith("/static/")])
def test_no_cache_keeps_a_page(visitor: Visitor, path: str) -> None:
    assert visitor.get(path).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["pico.min.css", "pwreset.css", "pwreset.js", "favicon.svg"])
def test_static_files_may_be_kept(visitor: Visitor, name: str) -> None:
    assert "no-store" not in visitor.get(f"/static/{name}", buffered=True).headers["Cache-Control"]


def test_https_is_remembered_by_browsers_where_it_is_public(public: Flask) -> None:
    hsts = public_visitor(public).get("/nothing-here").headers["Strict-Transport-Security"]
    assert int(re.match(r"max-age=(\d+)", hsts)[1]) >= 31536000


@pytest.mark.parametrize("settings", [{}, PUBLIC | {"PUBLIC_URL": "http://localhost"}])
def test_plain_http_promises_no_https(make_app: MakeApp, settings: dict[str, str]) -> None:
    assert "Strict-Transport-Security" not in Visitor(make_app(**settings)).get("/login/").headers


def test_the_software_is_not_announced(visitor: Visitor) -> None:
    headers = visitor.get("/login/").headers
    assert {"Server", "X-Powered-By"} & set(headers.keys()) == set()


# --- cookies


def cookie_of(answer: Any) -> tuple[str, set[str]]:
    """Return name and attributes of the one cookie an answer sets."""
    (header,) = answer.headers.getlist("Set-Cookie")
    first, *attributes = header.split("; ")
    return first.partition("=")[0], set(attributes)


def test_the_local_cookie_has_a_name_of_its_own(visitor: Visitor) -> None:
    assert cookie_of(visitor.get("/login/")) == ("pwreset_session", {"HttpOnly", "Path=/", "SameSite=Lax"})


def test_the_public_cookie_is_bound_to_host_and_https(public: Flask) -> None:
    name, attributes = cookie_of(public_visitor(public).get("/login/"))
    assert (name, attributes) == ("__Host-pwreset_session", {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"})


def test_a_first_try_over_http_has_a_cookie_that_works(make_app: MakeApp) -> None:
    app = make_app(**PUBLIC | {"PUBLIC_URL": "http://localhost"})
    name, attributes = cookie_of(Visitor(app).get("/login/"))
    assert (name, "Secure" in attributes) == ("pwreset_session", False)


def test_a_page_without_a_form_sets_no_cookie(visitor: Visitor) -> None:
    assert visitor.get("/").headers.getlist("Set-Cookie") == []


def test_an_answer_that_depends_on_the_cookie_says_so(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert "Cookie" in visitor.get("/account/").headers["Vary"]


@pytest.mark.parametrize("planted", ["", "x", "a.b.c", "é", "e30.aaaaaa.bbbbbbbbbb", "." * 4000])
def test_a_cookie_that_is_not_ours_is_ignored(app: Flask, planted: str) -> None:
    client = app.test_client(use_cookies=False)
    headers = {"Cookie": f"pwreset_session={planted}".encode().decode("latin-1")}
    assert client.get("/account/", headers=headers).status_code == 302


# --- keys


def moved(app: Flask, visitor: Visitor) -> Visitor:
    """Return the same browser before an application that was started anew."""
    cookie = visitor.client.get_cookie("pwreset_session")
    again = Visitor(app)
    again.client.set_cookie("pwreset_session", cookie.value)
    return again


@pytest.mark.parametrize("fallbacks", [OLD_KEY, f"{OLDEST_KEY},{OLD_KEY}", f"{OLD_KEY},{OLDEST_KEY}"])
def test_sessions_and_forms_survive_a_new_key(make_app: MakeApp, alice: int, fallbacks: str) -> None:
    visitor = Visitor(make_app(SECRET_KEY=OLD_KEY))
    visitor.log_in()
    token = csrf_token(visitor.get("/password-change/"))
    later = moved(make_app(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=fallbacks), visitor)
    assert later.is_signed_in()
    assert later.client.post("/logout/", data={"csrf_token": token}).status_code == 302


def test_links_survive_a_new_key(make_app: MakeApp, alice: int) -> None:
    link = Inbox(make_app(SECRET_KEY=OLD_KEY)).reset_link()
    app = make_app(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=f"{OLDEST_KEY},{OLD_KEY}")
    assert Visitor(app).choose(link).location == "/password-reset-complete/"


def test_nothing_survives_a_key_that_was_dropped(make_app: MakeApp, alice: int) -> None:
    old = make_app(SECRET_KEY=OLD_KEY)
    visitor = Visitor(old)
    visitor.log_in()
    token = csrf_token(visitor.get("/password-change/"))
    later = moved(make_app(SECRET_KEY=KEY), visitor)
    assert not later.is_signed_in()
    assert later.client.post("/password-reset/", data={"csrf_token": token, "email": "a@b.example"}).status_code == 400


def test_what_is_new_is_signed_with_the_new_key(make_app: MakeApp, alice: int) -> None:
    visitor = Visitor(make_app(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=OLD_KEY))
    visitor.log_in()
    token = csrf_token(visitor.get("/password-change/"))
    later = moved(make_app(SECRET_KEY=KEY), visitor)
    assert later.is_signed_in()
    assert later.client.post("/logout/", data={"csrf_token": token}).status_code == 302


# --- CSRF

FORMS = [
    "/login/",
    "/register/",
    "/password-reset/",
    "/logout/",
    "/password-change/",
    "/account/sign-out-everywhere/",
    "/password-reset-confirm/MQ/set-password",
]


@pytest.mark.parametrize("token", [None, "", "x", "a.b.c"])
@pytest.mark.parametrize("path", FORMS)
def test_every_form_needs_the_pages_token(alice: int, visitor: Visitor, path: str, token: str | None) -> None:
    visitor.log_in()
    page = visitor.client.post(path, data={} if token is None else {"csrf_token": token})
    assert page.status_code == 400
    assert "Open the form again." in page.text


def test_the_token_of_another_browser_is_refused(app: Flask, visitor: Visitor) -> None:
    token = csrf_token(Visitor(app).get("/login/"))
    visitor.get("/login/")
    assert (
        visitor.client.post("/password-reset/", data={"email": "a@b.example", "csrf_token": token}).status_code == 400
    )


def test_the_page_for_a_refused_token_leads_back_to_the_form(visitor: Visitor) -> None:
    assert 'href="/password-reset/">Try again' in visitor.client.post("/password-reset/").text


def test_a_token_in_the_query_does_not_count(visitor: Visitor) -> None:
    token = csrf_token(visitor.get("/password-reset/"))
    assert visitor.client.post(f"/password-reset/?csrf_token={token}", data={"email": "a@b.example"}).status_code == 400


def test_a_form_left_open_over_night_still_works(visitor: Visitor, time_machine: Any) -> None:
    time_machine.move_to("2031-03-01T18:00:00Z")
    token = csrf_token(visitor.get("/password-reset/"))
    time_machine.shift(15 * 3600)
    answer = visitor.client.post("/password-reset/", data={"email": "a@b.example", "csrf_token": token})
    assert answer.status_code == 302


# --- proxies


def seen_address(app: Flask, forwarded: str, **headers: str) -> str:
    """Return whom the application takes for the client: what the account page says of a login."""
    add_user(app, "alice@example.com", PASSWORD)
    visitor = Visitor(app)
    visitor.client.environ_base["HTTP_X_FORWARDED_FOR"] = forwarded
    visitor.log_in()
    return re.search(r"from ([\d.]+)", visitor.get("/account/").text)[1]


@pytest.mark.parametrize(
    ("proxies", "address"),
    [(0, "127.0.0.1"), (1, "203.0.113.9"), (2, "198.51.100.2"), (3, "192.0.2.1"), (4, "127.0.0.1")],
)
def test_as_many_proxies_are_believed_as_set(make_app: MakeApp, proxies: int, address: str) -> None:
    app = make_app(TRUSTED_PROXIES=proxies)
    assert seen_address(app, "192.0.2.1, 198.51.100.2, 203.0.113.9") == address


@pytest.mark.parametrize("proxies", [0, 1])
def test_a_forwarded_host_is_never_believed(make_app: MakeApp, proxies: int) -> None:
    app = make_app(**PUBLIC, TRUSTED_PROXIES=proxies)
    forged = {"X-Forwarded-Host": HOST, "Host": "evil.example"}
    assert app.test_client().get("/login/", headers=forged).status_code == 400


@pytest.mark.parametrize(("proxies", "scheme"), [(0, "http"), (1, "https")])
def test_a_forwarded_scheme_is_believed_of_trusted_proxies_only(make_app: MakeApp, proxies: int, scheme: str) -> None:
    visitor = Visitor(make_app(TRUSTED_PROXIES=proxies))
    fields = {"email": "alice@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    headers = {"X-Forwarded-Proto": "http, https", "Origin": f"{scheme}://localhost"}
    assert visitor.client.post("/password-reset/", data=fields, headers=headers).status_code == 302


@pytest.mark.parametrize("forwarded", ["", ",", "unknown", "<script>", "'", "x" * 4000, "1.2.3.4:80"])
def test_a_forwarded_address_that_is_none_is_no_error(make_app: MakeApp, forwarded: str) -> None:
    visitor = Visitor(make_app(TRUSTED_PROXIES=1))
    visitor.client.environ_base["HTTP_X_FORWARDED_FOR"] = forwarded
    assert visitor.ask_for_reset("a@example.com").status_code == 302


@pytest.mark.parametrize("forwarded", ["203.0.113.9:51234", "192.0.2.1, 203.0.113.9:443", "203.0.113.9"])
def test_a_port_behind_a_forwarded_address_is_left_out(make_app: MakeApp, forwarded: str) -> None:
    assert seen_address(make_app(TRUSTED_PROXIES=1), forwarded) == "203.0.113.9"


@pytest.mark.parametrize("forwarded", ["[2001:db8::1]:443", "[2001:db8::1]", "2001:db8::1"])
def test_an_ipv6_address_may_come_in_brackets(make_app: MakeApp, forwarded: str) -> None:
    app = make_app(TRUSTED_PROXIES=1)
    app.add_url_rule("/me/", view_func=lambda: str(current_request_info().address))
    assert app.test_client().get("/me/", headers={"X-Forwarded-For": forwarded}).text == "2001:db8::1"


def test_a_forged_address_does_not_open_the_mailbox(make_app: MakeApp) -> None:
    client = make_app(TRUSTED_PROXIES=0).test_client()
    client.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    assert client.get("/mailbox/", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 404


# --- bodies, methods, paths


def send(visitor: Visitor, body: Any, kind: str = "application/x-www-form-urlencoded") -> Any:
    """Send a body to the reset form."""
    return visitor.client.post("/password-reset/", data=body, content_type=kind)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"])
def test_a_body_over_64_kib_is_413(visitor: Visitor, inbox: Inbox, kind: str) -> None:
    assert send(visitor, b"x" * (64 * 1024 + 1), kind).status_code == 413
    assert inbox.waiting() == 0


def test_a_body_of_64_kib_is_read(visitor: Visitor) -> None:
    token = csrf_token(visitor.get("/password-reset/"))
    body = f"csrf_token={token}&email="
    page = send(visitor, body + "x" * (64 * 1024 - len(body)))
    assert page.status_code == 200
    assert "at most 254 characters" in page.text


@pytest.mark.parametrize("field", ["email", "csrf_token", "unknown"])
def test_a_repeated_field_is_refused(visitor: Visitor, inbox: Inbox, field: str) -> None:
    token = csrf_token(visitor.get("/password-reset/"))
    fields = [("email", "a@example.com"), ("csrf_token", token), ("unknown", "x")]
    repeated = [*fields, (field, dict(fields)[field])]
    body = "&".join(f"{name}={value}" for name, value in repeated)
    assert send(visitor, body).status_code == 400
    assert inbox.waiting() == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", '{"email": "a@example.com"}'),
        ("application/json", "{"),
        ("application/json; charset=utf-16", "{}"),
        ("application/vnd.api+json", "[]"),
        ("application/xml", "<email/>"),
        ("text/plain", "email=a@example.com"),
        ("application/octet-stream", b"\x00\xff"),
        ("", b"\x00\xff"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\ngarbage"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--"),
        ("multipart/form-data; boundary=\xff", b"--b--"),
        ("application/x-www-form-urlencoded", b"\xff\xfe=%ff%00&=&&&%%%"),
        ("application/x-www-form-urlencoded", b"&".join(b"f%d=x" % number for number in range(5000))),
        ("application/x-www-form-urlencoded; charset=utf-7", b"email=+AGE-"),
    ],
)
def test_a_body_that_is_no_form_is_a_4xx(visitor: Visitor, inbox: Inbox, kind: str, body: Any) -> None:
    headers = {"X-CSRFToken": csrf_token(visitor.get("/password-reset/"))}
    answer = visitor.client.post("/password-reset/", data=body, content_type=kind, headers=headers)
    # With the token in its header the empty form comes back; nothing is done either way.
    assert answer.status_code in {400, 413} or "email_error" in answer.text
    assert inbox.waiting() == 0


def test_a_multipart_form_is_read_like_the_other(visitor: Visitor, inbox: Inbox) -> None:
    fields = {"email": "a@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    assert send(visitor, fields, "multipart/form-data").status_code == 302
    assert inbox.waiting() == 1


def test_an_upload_is_refused(visitor: Visitor, inbox: Inbox) -> None:
    body = (
        f'--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{csrf_token(visitor.get("/password-reset/"))}'
        '\r\n--b\r\nContent-Disposition: form-data; name="email"; filename="x"\r\n\r\na@example.com\r\n--b--\r\n'
    )
    assert send(visitor, body, "multipart/form-data; boundary=b").status_code == 400
    assert inbox.waiting() == 0


BYTES = ["%ff", "%00", "%c3", "%ed%a0%80", "%f8%88%80%80%80", "%", "%zz", "%0d%0a", "%e2%80%ae"]


@pytest.mark.parametrize("text", BYTES)
@pytest.mark.parametrize("field", ["email", "password", "next", "remember", "csrf_token", "%ff"])
def test_bytes_that_are_no_text_in_a_form_are_no_500(visitor: Visitor, field: str, text: str) -> None:
    fields = {
        "email": "a%40example.com",
        "password": "x",
        "csrf_token": csrf_token(visitor.get("/login/")),
        field: text,
    }
    body = "&".join(f"{name}={value}" for name, value in fields.items())
    answer = visitor.client.post("/login/", data=body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code in {200, 302, 400}


@pytest.mark.parametrize("raw", [b"\xff", b"\x00", b"\xed\xa0\x80", b"\xc3("])
def test_raw_bytes_in_a_form_are_no_500(visitor: Visitor, raw: bytes) -> None:
    token = csrf_token(visitor.get("/login/")).encode()
    body = b"csrf_token=" + token + b"&password=" + raw + b"&email=" + raw + b"@example.com"
    answer = visitor.client.post("/login/", data=body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code in {200, 400}


@pytest.mark.parametrize("text", BYTES)
@pytest.mark.parametrize("path", ["/", "/login/", "/password-reset/", "/account/", "/healthz", "/mailbox/"])
def test_bytes_that_are_no_text_in_a_query_are_no_500(visitor: Visitor, path: str, text: str) -> None:
    assert visitor.get(f"{path}?next={text}&{text}={text}").status_code in {200, 302}


@pytest.mark.parametrize(
    "raw", ["\x00", "\xff", "\xed\xa0\x80", "a\x00b", "..", "../..", "\\", "%", "\r\nA: b", "x" * 9000]
)
@pytest.mark.parametrize(
    "path",
    [
        "/{}",
        "/static/{}",
        "/static/{}/pico.min.css",
        "/mailbox/{}",
        "/mailbox/{}/html",
        "/password-reset-confirm/{}/{}",
        "/password-reset-confirm/MQ/{}",
        "/login/{}",
    ],
)
def test_bytes_in_a_path_are_no_500(app: Flask, path: str, raw: str) -> None:
    environ = {"PATH_INFO": path.replace("{}", raw)}
    answer = app.test_client().get("/", environ_overrides=environ)
    assert answer.status_code in {200, 302, 308, 404}
    assert "\n" not in (answer.location or "")


@pytest.mark.parametrize(
    "path", ["//evil.example/login", "//login/", "///", "/\\evil.example", "//evil.example/%2e%2e"]
)
def test_a_path_with_two_slashes_leads_nowhere_else(app: Flask, path: str) -> None:
    answer = app.test_client().get("/", environ_overrides={"PATH_INFO": path})
    assert answer.status_code in {200, 308, 404}
    assert re.match(r"/(?![/\\])", answer.location or "/")


@pytest.mark.parametrize("headers", [{"Host": "localhost:1337"}, {"X-Forwarded-Proto": "javascript"}])
def test_a_redirect_to_the_slash_takes_nothing_from_the_request(make_app: MakeApp, headers: dict[str, str]) -> None:
    answer = make_app(TRUSTED_PROXIES="1").test_client().get("/login", headers=headers)
    assert (answer.status_code, answer.location) == (308, "/login/")


def test_a_redirect_to_another_site_that_the_team_names_stays_whole(make_app: MakeApp) -> None:
    app = make_app()
    app.add_url_rule("/away/", view_func=lambda: redirect("https://www.example.com/welcome"))
    assert app.test_client().get("/away/").location == "https://www.example.com/welcome"


@pytest.mark.parametrize(
    "path", ["/static/../config.py", "/static/..%2f..%2fconfig.py", "/static//etc/passwd", "/static/"]
)
def test_static_files_do_not_leave_their_folder(app: Flask, path: str) -> None:
    assert app.test_client().get("/", environ_overrides={"PATH_INFO": path}).status_code in {308, 404}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", {"GET", "HEAD", "OPTIONS"}),
        ("/account/", {"GET", "HEAD", "OPTIONS"}),
        ("/register/done/", {"GET", "HEAD", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("/login/", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/password-reset/", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/password-reset-confirm/MQ/x", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/account/sign-out-everywhere/", {"POST", "OPTIONS"}),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND"])
def test_a_wrong_method_is_405_and_says_which_are_right(
    visitor: Visitor, path: str, allowed: set[str], method: str
) -> None:
    answer = visitor.client.open(path, method=method)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path", ["/nothing", "/admin/", "/login/x", "/.env", "/.git/config", "/metrics.json", "/static/x"]
)
def test_an_unknown_path_is_a_404_page(visitor: Visitor, path: str) -> None:
    page = visitor.get(path)
    assert page.status_code == 404
    assert "There is nothing at this address" in page.text


@pytest.mark.parametrize("path", PAGES)
def test_head_answers_as_get_without_a_body(visitor: Visitor, path: str) -> None:
    answer = visitor.client.head(path)
    assert (answer.status_code, answer.data) == (visitor.get(path).status_code, b"")


# --- rate limits


def statuses(visitor: Visitor, path: str, times: int) -> list[int]:
    """Return the statuses of so many posts."""
    token = csrf_token(visitor.get("/password-reset/"))
    fields = {"csrf_token": token, "email": "not an address", "password": "x"}
    return [visitor.client.post(path, data=fields).status_code for _ in range(times)]


@pytest.mark.usefixtures("early_in_a_minute")
@pytest.mark.parametrize(("path", "limit"), [("/password-reset/", 20), ("/register/", 20), ("/login/", 30)])
def test_one_post_too_many_within_a_minute_is_429(visitor: Visitor, path: str, limit: int) -> None:
    assert statuses(visitor, path, limit + 1) == [200] * limit + [429]


@pytest.mark.usefixtures("early_in_a_minute")
def test_the_confirm_page_is_limited_too(visitor: Visitor) -> None:
    assert statuses(visitor, "/password-reset-confirm/MQ/set-password", 31) == [200] * 30 + [429]


def test_a_limited_visitor_is_told_when_to_come_back(visitor: Visitor, time_machine: Any) -> None:
    time_machine.move_to("2031-03-01T12:00:00.5Z", tick=False)
    statuses(visitor, "/password-reset/", 20)
    page = visitor.client.post("/password-reset/", data={"csrf_token": csrf_token(visitor.get("/login/"))})
    assert (page.status_code, page.headers["Retry-After"]) == (429, "60")
    assert "Try again in 1 minute." in page.text


def test_the_wait_gets_shorter_and_is_told_in_words(visitor: Visitor, time_machine: Any) -> None:
    time_machine.move_to("2031-03-01T12:00:00.5Z", tick=False)
    statuses(visitor, "/password-reset/", 20)
    time_machine.shift(18)
    page = visitor.submit("/password-reset/", email="alice@example.com")
    assert (page.status_code, page.headers["Retry-After"]) == (429, "42")
    assert "Try again in 42 seconds." in page.text


@pytest.mark.usefixtures("early_in_a_minute")
def test_a_limited_visitor_may_still_read(visitor: Visitor) -> None:
    statuses(visitor, "/password-reset/", 21)
    assert visitor.get("/password-reset/").status_code == 200


def test_reading_is_not_counted(visitor: Visitor) -> None:
    assert {visitor.get("/password-reset/").status_code for _ in range(60)} == {200}
    assert statuses(visitor, "/password-reset/", 1) == [200]


def test_each_form_has_a_limit_of_its_own(visitor: Visitor) -> None:
    statuses(visitor, "/password-reset/", 21)
    assert statuses(visitor, "/login/", 1) == [200]


def test_each_client_has_a_limit_of_its_own(app: Flask, visitor: Visitor) -> None:
    statuses(visitor, "/password-reset/", 21)
    other = Visitor(app)
    other.client.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    assert statuses(other, "/password-reset/", 1) == [200]


def test_a_client_may_go_on_after_a_minute(visitor: Visitor, time_machine: Any) -> None:
    time_machine.move_to("2031-03-01T18:00:00Z")
    assert statuses(visitor, "/password-reset/", 21)[-1] == 429
    time_machine.shift(61)
    assert statuses(visitor, "/password-reset/", 1) == [200]


@pytest.mark.usefixtures("early_in_a_minute")
def test_a_forged_address_does_not_escape_the_limit(visitor: Visitor) -> None:
    statuses(visitor, "/password-reset/", 20)
    visitor.client.environ_base["HTTP_X_FORWARDED_FOR"] = "203.0.113.9"
    assert statuses(visitor, "/password-reset/", 1) == [429]


def test_limits_can_be_switched_off(make_app: MakeApp) -> None:
    visitor = Visitor(make_app(RATELIMIT_ENABLED=False))
    assert statuses(visitor, "/password-reset/", 25) == [200] * 25
