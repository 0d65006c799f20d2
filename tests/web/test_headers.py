"""The security headers of every response."""

import re

import pytest
from flask import Flask

from tests.support.app import MakeApp, Visitor
from tests.support.databases import on_sqlite
from tests.support.public_mode import IN_PUBLIC, get, public_visitor

pytestmark = on_sqlite  # tests/attacks has what reaches a database
PAGES = ["/", "/login/", "/register/", "/register/done/", "/password-reset/", "/password-reset/done/", "/logout/"]


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


@pytest.mark.parametrize("settings", [{}, IN_PUBLIC | {"PUBLIC_URL": "http://localhost"}])
def test_plain_http_promises_no_https(make_app: MakeApp, settings: dict[str, str]) -> None:
    assert "Strict-Transport-Security" not in Visitor(make_app(**settings)).get("/login/").headers


def test_the_software_is_not_announced(visitor: Visitor) -> None:
    headers = visitor.get("/login/").headers
    assert {"Server", "X-Powered-By"} & set(headers.keys()) == set()
