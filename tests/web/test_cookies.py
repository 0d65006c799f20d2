"""The session cookie: its name and attributes, and what a change of the secret key does to it."""

from typing import Any

import pytest
from flask import Flask

from tests.support.app import Inbox, MakeApp, Visitor
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token
from tests.support.public_mode import IN_PUBLIC, public_visitor
from tests.support.settings import KEY, OLD_KEY

pytestmark = on_sqlite  # tests/attacks has what reaches a database
OLDEST_KEY = "p0Oi-9uYtR8eWqA7sDfG6hJkL5zXcV4bNm3QwErT"


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
    app = make_app(**IN_PUBLIC | {"PUBLIC_URL": "http://localhost"})
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
