"""Every form needs the CSRF token of its page."""

from typing import Any

import pytest
from flask import Flask

from tests.support.app import Visitor
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token

pytestmark = on_sqlite  # tests/attacks has what reaches a database


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
