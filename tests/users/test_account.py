"""The account page, logging out here, and signing out everywhere."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from pwreset import accounts
from pwreset.extensions import db
from tests.support.app import Inbox, Visitor, add_user
from tests.support.pages import csrf_token
from tests.support.passwords import PASSWORD

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def switch(app: Flask, user_id: int, *, active: bool) -> None:
    with app.app_context():
        accounts.set_active(accounts.find_by_id(user_id), active=active)
        db.session.commit()


# --- home


def test_the_start_page_offers_a_stranger_to_log_in_and_to_register(visitor: Visitor) -> None:
    page = visitor.get("/").text
    assert [f'href="{path}"' in page for path in ("/login/", "/register/", "/password-reset/")] == [True, True, True]


def test_the_start_page_knows_who_is_logged_in(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    page = visitor.get("/").text
    assert "alice@example.com" in page
    assert 'href="/account/"' in page


@pytest.mark.parametrize("path", ["/", "/account/", "/password-change/", "/password-reset/", "/nowhere/"])
def test_every_page_of_somebody_logged_in_leads_out(alice: int, visitor: Visitor, path: str) -> None:
    visitor.log_in()
    assert '<a href="/logout/">Log out</a>' in visitor.get(path).text


# --- the account page


def test_the_account_page_needs_a_login_and_comes_back(alice: int, visitor: Visitor) -> None:
    answer = visitor.get("/account/")
    assert (answer.status_code, answer.location) == (302, "/login/?next=%2Faccount%2F")


def test_the_account_page_shows_the_address_and_the_last_login(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    page = visitor.get("/account/").text
    assert "alice@example.com" in page
    assert re.search(r"Last login</dt>\s*<dd><time datetime=\"\d{4}-\d\d-\d\dT", page)


def test_the_account_page_lists_what_happened_newest_first(alice: int, visitor: Visitor) -> None:
    visitor.log_in(password="wrong")
    visitor.client.environ_base["HTTP_USER_AGENT"] = FIREFOX
    visitor.log_in()
    page = visitor.get("/account/").text
    newest, oldest = re.findall(r"<li>\s+([^<]+?)\s+<span class=\"muted\">(.*?)</span>", page, re.DOTALL)
    assert (newest[0], oldest[0]) == ("Logged in", "Failed login")
    assert "from 127.0.0.1 · Firefox on Linux" in newest[1]


def test_the_account_page_shows_nothing_of_others(app: Flask, alice: int, visitor: Visitor) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    Visitor(app).log_in("bob@example.com", "wrong")
    visitor.log_in()
    page = visitor.get("/account/").text
    assert "Logged in" in page
    assert "Failed login" not in page
    assert "bob@example.com" not in page


def test_what_a_browser_calls_itself_cannot_become_part_of_the_page(alice: int, visitor: Visitor) -> None:
    visitor.client.environ_base["HTTP_USER_AGENT"] = "<script>alert(1)</script> Firefox/1"
    visitor.log_in()
    page = visitor.get("/account/").text
    assert "from 127.0.0.1 · Firefox" in page
    assert "alert(1)" not in page


# --- log out


def test_opening_the_log_out_page_signs_nobody_out(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    page = visitor.get("/logout/")
    assert page.status_code == 200
    button = r'<form method="post" action="/logout/">.*<button type="submit">Log out</button>'
    assert re.search(button, page.text, re.DOTALL)
    assert visitor.is_signed_in()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_no_safe_method_signs_anybody_out(alice: int, visitor: Visitor, method: str) -> None:
    visitor.log_in()
    visitor.client.open("/logout/", method=method)
    assert visitor.is_signed_in()


def test_the_button_signs_out(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.log_out().location == "/"
    assert not visitor.is_signed_in()


def test_logging_out_is_confirmed_once(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    visitor.log_out()
    assert ["You have been logged out." in visitor.get("/").text for _ in range(2)] == [True, False]


def test_logging_out_ends_this_session_only(app: Flask, alice: int, visitor: Visitor) -> None:
    other = Visitor(app)
    other.log_in()
    visitor.log_in()
    visitor.log_out()
    assert other.is_signed_in()


def test_logging_out_empties_a_remembered_session(alice: int, visitor: Visitor) -> None:
    visitor.log_in(remember="y")
    visitor.log_out()
    cookie = visitor.client.get_cookie("pwreset_session")
    assert cookie.expires is None


def test_logging_out_needs_the_pages_token(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.client.post("/logout/").status_code == 400
    assert visitor.is_signed_in()


def test_the_log_out_page_leads_a_stranger_to_the_start(visitor: Visitor) -> None:
    answer = visitor.get("/logout/")
    assert (answer.status_code, answer.location) == (302, "/")


def test_a_stranger_may_press_log_out(visitor: Visitor) -> None:
    assert visitor.submit("/login/", at="/logout/").location == "/"


# --- sign out everywhere


def test_signing_out_everywhere_ends_both_sessions(app: Flask, alice: int, visitor: Visitor) -> None:
    other = Visitor(app)
    other.log_in(remember="y")
    visitor.log_in()
    answer = visitor.submit("/account/", at="/account/sign-out-everywhere/")
    assert answer.location == "/login/"
    assert (visitor.is_signed_in(), other.is_signed_in()) == (False, False)


def test_signing_out_everywhere_is_confirmed(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    visitor.submit("/account/", at="/account/sign-out-everywhere/")
    assert "signed out on every device" in visitor.get("/login/").text


def test_signing_out_everywhere_keeps_the_password(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    visitor.submit("/account/", at="/account/sign-out-everywhere/")
    assert visitor.log_in().location == "/account/"


def test_signing_out_everywhere_is_remembered(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    visitor.submit("/account/", at="/account/sign-out-everywhere/")
    visitor.log_in()
    assert "Signed out everywhere" in visitor.get("/account/").text


def test_signing_out_everywhere_kills_a_link_under_way(app: Flask, alice: int, visitor: Visitor, inbox: Inbox) -> None:
    visitor.log_in()
    link = inbox.reset_link()
    visitor.submit("/account/", at="/account/sign-out-everywhere/")
    assert "no longer valid" in Visitor(app).open_link(link).text


def test_signing_out_everywhere_leaves_other_accounts_alone(app: Flask, alice: int, visitor: Visitor) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    bob = Visitor(app)
    bob.log_in("bob@example.com")
    visitor.log_in()
    visitor.submit("/account/", at="/account/sign-out-everywhere/")
    assert bob.is_signed_in()


def test_a_stranger_who_signs_out_everywhere_is_led_to_a_page_that_exists(alice: int, visitor: Visitor) -> None:
    answer = visitor.submit("/login/", at="/account/sign-out-everywhere/")
    assert answer.location == "/login/?next=/account/"
    token = csrf_token(visitor.get(answer.location))
    fields = {"email": "alice@example.com", "password": PASSWORD, "csrf_token": token}
    assert visitor.client.post(answer.location, data=fields, follow_redirects=True).status_code == 200


def test_signing_out_everywhere_is_no_page(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.get("/account/sign-out-everywhere/").status_code == 405
    assert visitor.is_signed_in()


# --- deactivation


def test_deactivation_ends_every_session(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    switch(app, alice, active=False)
    assert not visitor.is_signed_in()


def test_coming_back_revives_no_session(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in(remember="y")
    switch(app, alice, active=False)
    switch(app, alice, active=True)
    assert not visitor.is_signed_in()


def test_an_account_that_came_back_can_log_in(app: Flask, alice: int, visitor: Visitor) -> None:
    switch(app, alice, active=False)
    switch(app, alice, active=True)
    assert visitor.log_in().location == "/account/"


def test_a_session_in_a_browser_left_open_ends_after_two_weeks_too(
    alice: int, visitor: Visitor, time_machine: Any
) -> None:
    visitor.log_in()
    time_machine.move_to(datetime.now(UTC) + timedelta(days=14, seconds=2))
    assert not visitor.is_signed_in()
