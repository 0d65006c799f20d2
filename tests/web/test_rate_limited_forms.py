"""A form that is sent too often answers 429 and says when to try again."""

from typing import Any

import pytest
from flask import Flask

from tests.support.app import MakeApp, Visitor
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token

pytestmark = on_sqlite  # tests/attacks has what reaches a database


def statuses(visitor: Visitor, path: str, times: int) -> list[int]:
    """Return the statuses of so many posts."""
    token = csrf_token(visitor.get("/password-reset/"))
    fields = {"csrf_token": token, "email": "not an address", "password": "x"}
    return [visitor.client.post(path, data=fields).status_code for _ in range(times)]


@pytest.mark.usefixtures("early_in_a_minute")
@pytest.mark.parametrize(("path", "limit"), [("/password-reset/", 20), ("/register/", 20), ("/login/", 30)])
def test_one_post_too_many_within_a_minute_is_429(visitor: Visitor, path: str, limit: int) -> None:
    assert statuses(visitor, path, limit + 1) == [200] * limit + [429]


def test_the_confirm_page_is_limited_too(visitor: Visitor) -> None:
    assert statuses(visitor, "/password-reset-confirm/MQ/set-password", 31) == [200] * 30 + [429]


def test_a_limited_visitor_sees_when_to_try_again(visitor: Visitor, time_machine: Any) -> None:
    time_machine.move_to("2031-03-01T12:00:00.5Z", tick=False)
    statuses(visitor, "/password-reset/", 20)
    page = visitor.client.post("/password-reset/", data={"csrf_token": csrf_token(visitor.get("/login/"))})
    assert (page.status_code, page.headers["Retry-After"]) == (429, "60")
    assert "Try again in 1 minute." in page.text


def test_the_remaining_wait_is_shown_in_words(visitor: Visitor, time_machine: Any) -> None:
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
