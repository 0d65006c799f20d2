"""Bodies, bytes, paths and methods that no browser sends get a clear answer and never a 500."""

import re
from typing import Any

import pytest
from flask import Flask, redirect

from tests.support.app import Inbox, MakeApp, Visitor
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token

pytestmark = on_sqlite  # tests/attacks has what reaches a database
PAGES = ["/", "/login/", "/register/", "/register/done/", "/password-reset/", "/password-reset/done/", "/logout/"]


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


def test_a_redirect_to_another_site_that_the_team_names_stays_unchanged(make_app: MakeApp) -> None:
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
