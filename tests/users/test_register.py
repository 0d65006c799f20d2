"""Registration: every address gets the same page, and the email contains the rest."""

import pytest
from flask import Flask

from pwreset import accounts
from pwreset.extensions import db
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.pages import csrf_token, link_in, path_of, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD


def register(visitor: Visitor, email: str):
    return visitor.submit("/register/", email=email)


def test_the_form_asks_for_an_address_and_nothing_else(visitor: Visitor) -> None:
    page = visitor.get("/register/")
    assert page.status_code == 200
    assert 'name="email"' in page.text
    assert 'type="password"' not in page.text


def test_an_address_leads_to_the_done_page(visitor: Visitor) -> None:
    response = register(visitor, "new@example.com")
    assert (response.status_code, response.location) == (302, "/register/done/")


def test_known_and_unknown_addresses_are_answered_alike(app: Flask, alice: int) -> None:
    add_user(app, "carol@example.com", None)
    pages = []
    for email in ("alice@example.com", "carol@example.com", "nobody@example.com"):
        visitor = Visitor(app)
        answer = register(visitor, email)
        done = visitor.get("/register/done/")
        page = done.text.replace(email, "ADDRESS").replace(csrf_token(done), "TOKEN")
        pages.append((answer.status_code, answer.location, answer.text, done.status_code, page))
    assert pages[0] == pages[1] == pages[2]


def test_the_done_page_shows_the_address_that_was_typed(visitor: Visitor) -> None:
    register(visitor, "New@Example.COM")
    assert "New@example.com" in visitor.get("/register/done/").text


def test_the_done_page_works_for_a_visitor_who_sent_nothing(visitor: Visitor) -> None:
    page = visitor.get("/register/done/")
    assert page.status_code == 200
    assert "the address you entered" in page.text


def test_the_done_page_sends_again(visitor: Visitor, inbox: Inbox) -> None:
    register(visitor, "new@example.com")
    answer = visitor.submit("/register/done/", at="/register/", email="new@example.com")
    assert answer.location == "/register/done/"
    assert inbox.waiting() == 2


def test_no_account_exists_before_the_email_is_written(app: Flask, visitor: Visitor) -> None:
    register(visitor, "new@example.com")
    with app.app_context():
        assert accounts.find("new@example.com") is None


def test_a_new_address_is_emailed_a_link_that_makes_an_account(app: Flask, visitor: Visitor, inbox: Inbox) -> None:
    register(visitor, "new@example.com")
    mail = inbox.deliver_one()
    assert mail["To"] == "new@example.com"
    assert visitor.choose(link_in(mail)).location == "/password-reset-complete/"
    assert Visitor(app).log_in("new@example.com", NEW_PASSWORD).location == "/account/"


def test_the_link_is_no_use_twice(visitor: Visitor, inbox: Inbox) -> None:
    register(visitor, "new@example.com")
    link = link_in(inbox.deliver_one())
    visitor.choose(link)
    assert "no longer valid" in visitor.open_link(link).text


def test_an_account_that_never_chose_a_password_is_emailed_the_link_again(visitor: Visitor, inbox: Inbox) -> None:
    register(visitor, "new@example.com")
    first = link_in(inbox.deliver_one())
    inbox.let_a_minute_pass()
    register(visitor, "new@example.com")
    second = link_in(inbox.deliver_one())
    assert [Visitor(inbox.app).open_link(link).text.count("new_password1") > 0 for link in (first, second)] == [
        True,
        True,
    ]


def test_the_owner_of_a_known_address_gets_an_email_with_a_link_to_the_reset(
    alice: int, visitor: Visitor, inbox: Inbox
) -> None:
    register(visitor, "ALICE@EXAMPLE.COM")
    mail = inbox.deliver_one()
    assert mail["To"] == "alice@example.com"
    assert path_of(link_in(mail)) == "/password-reset/"
    assert "password-reset-confirm" not in text_of(mail)


def test_registering_a_known_address_changes_nothing(app: Flask, alice: int, inbox: Inbox) -> None:
    register(Visitor(app), "alice@example.com")
    inbox.deliver()
    assert Visitor(app).log_in(password=PASSWORD).location == "/account/"


def test_a_deactivated_account_is_emailed_nothing(app: Flask, alice: int, visitor: Visitor, inbox: Inbox) -> None:
    with app.app_context():
        accounts.set_active(accounts.find_by_id(alice), active=False)
        db.session.commit()
    register(visitor, "alice@example.com")
    inbox.deliver()
    assert (inbox.emails(), inbox.waiting()) == ([], 0)


@pytest.mark.parametrize(
    "email",
    ["", "   ", "nobody", "nobody@", "@example.com", "a@b@example.com", "a@example", "a b@example.com", "x" * 300],
)
def test_what_is_no_address_comes_back_with_the_reason(visitor: Visitor, inbox: Inbox, email: str) -> None:
    page = register(visitor, email)
    assert page.status_code == 200
    assert "email_error" in page.text
    assert "<title>Error:" in page.text
    assert inbox.waiting() == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_closed_registration_does_not_exist(make_app: MakeApp, method: str) -> None:
    visitor = Visitor(make_app(REGISTRATION_OPEN=False))
    token = csrf_token(visitor.get("/login/"))
    fields = {"email": "new@example.com", "csrf_token": token} if method == "POST" else None
    assert visitor.client.open("/register/", method=method, data=fields).status_code == 404


@pytest.mark.parametrize("path", ["/", "/login/", "/password-reset/", "/mailbox/"])
def test_no_page_leads_to_closed_registration(make_app: MakeApp, path: str) -> None:
    assert "/register/" not in Visitor(make_app(REGISTRATION_OPEN=False)).get(path).text


def test_who_is_logged_in_is_sent_on(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.get("/register/").location == "/account/"


def test_who_is_logged_in_registers_nobody(alice: int, visitor: Visitor, inbox: Inbox) -> None:
    visitor.log_in()
    answer = visitor.submit("/account/", at="/register/", email="new@example.com")
    assert answer.location == "/account/"
    assert inbox.waiting() == 0
