"""Changing the password needs the old one, keeps this session, and notifies the owner by email."""

from urllib.parse import quote

import pytest
from flask import Flask
from sqlalchemy import update

from pwreset import accounts
from pwreset.accounts import events
from pwreset.extensions import db
from pwreset.models import User
from pwreset.passwords.hashing import make_password
from tests.support.app import Inbox, Visitor
from tests.support.pages import csrf_token, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD

COOKIE = "pwreset_session"
OLD_WRONG = "Your old password was entered incorrectly"
NOT_THE_SAME = "The two passwords are not the same"


def change(visitor: Visitor, old: str = PASSWORD, new: str = NEW_PASSWORD, again: str | None = None):
    """Send the form; `again` is what the second field says where it differs."""
    fields = {"old_password": old, "new_password1": new, "new_password2": new if again is None else again}
    return visitor.submit("/password-change/", **fields)


@pytest.fixture
def member(alice: int, visitor: Visitor) -> Visitor:
    """Return somebody who is logged in as alice."""
    visitor.log_in()
    return visitor


def test_the_new_password_replaces_the_old_one(app: Flask, member: Visitor) -> None:
    answer = change(member)
    assert (answer.status_code, answer.location) == (302, "/password-change/done/")
    assert Visitor(app).log_in(password=NEW_PASSWORD).location == "/account/"
    assert Visitor(app).log_in(password=PASSWORD).status_code == 200


def test_the_done_page_says_so(member: Visitor) -> None:
    change(member)
    assert "Your password has been changed" in member.get("/password-change/done/").text


def test_this_session_lives_on(member: Visitor) -> None:
    change(member)
    assert member.is_signed_in()


def test_every_other_session_ends(app: Flask, member: Visitor) -> None:
    other = Visitor(app)
    other.log_in(remember="y")
    change(member)
    assert not other.is_signed_in()


def test_a_copy_of_this_sessions_cookie_ends_too(app: Flask, member: Visitor) -> None:
    thief = Visitor(app)
    thief.client.set_cookie(COOKIE, member.client.get_cookie(COOKIE).value)
    assert thief.is_signed_in()
    change(member)
    assert not thief.is_signed_in()


@pytest.mark.parametrize("remember", [True, False])
def test_a_session_stays_as_remembered_as_it_was(alice: int, visitor: Visitor, remember: bool) -> None:
    visitor.log_in(**({"remember": "y"} if remember else {}))
    change(visitor)
    assert (visitor.client.get_cookie(COOKIE).expires is not None) is remember


def test_the_csrf_token_is_a_new_one(member: Visitor) -> None:
    before = csrf_token(member.get("/password-change/"))
    change(member)
    member.get("/account/")
    assert member.client.post("/logout/", data={"csrf_token": before}).status_code == 400


def test_a_link_under_way_dies(app: Flask, member: Visitor, inbox: Inbox) -> None:
    link = inbox.reset_link()
    change(member)
    assert "no longer valid" in Visitor(app).open_link(link).text


def test_the_owner_is_notified_by_email(member: Visitor, inbox: Inbox) -> None:
    change(member)
    mail = inbox.deliver_one()
    assert mail["To"] == "alice@example.com"
    assert "changed" in text_of(mail)
    assert (PASSWORD in text_of(mail), NEW_PASSWORD in text_of(mail)) == (False, False)


def test_the_change_is_remembered(member: Visitor) -> None:
    change(member)
    assert "Password changed" in member.get("/account/").text


def test_a_wrong_old_password_changes_nothing(app: Flask, member: Visitor, inbox: Inbox) -> None:
    page = change(member, old="wrong")
    assert page.status_code == 200
    assert OLD_WRONG in page.text
    assert inbox.waiting() == 0
    assert Visitor(app).log_in().location == "/account/"


def test_two_different_new_passwords_change_nothing(app: Flask, member: Visitor, inbox: Inbox) -> None:
    page = change(member, again=NEW_PASSWORD + "x")
    assert NOT_THE_SAME in page.text
    assert inbox.waiting() == 0
    assert Visitor(app).log_in().location == "/account/"


def test_all_complaints_are_shown_at_once(member: Visitor) -> None:
    page = change(member, old="wrong", new="1234567", again="7654321").text
    assert OLD_WRONG in page
    assert NOT_THE_SAME in page
    assert "at least 15 characters" in page
    assert "entirely numeric" in page


@pytest.mark.parametrize("weak", ["short", "alice@example.com", "1" * 20, "passwordpassword", "aaaaaaaaaaaaaaaa"])
def test_the_rules_hold_for_a_change(app: Flask, member: Visitor, weak: str) -> None:
    page = change(member, new=weak)
    assert page.status_code == 200
    assert 'id="new_password1_error"' in page.text
    assert Visitor(app).log_in().location == "/account/"


@pytest.mark.parametrize("field", ["old_password", "new_password1", "new_password2"])
def test_an_empty_field_is_named(member: Visitor, field: str) -> None:
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD, field: ""}
    page = member.submit("/password-change/", **fields)
    assert f'id="{field}_error"' in page.text


def test_no_password_is_sent_back(member: Visitor) -> None:
    page = change(member, again="other words than these").text
    assert [text in page for text in (PASSWORD, NEW_PASSWORD, "other words than these")] == [False, False, False]


def test_the_page_carries_the_address_for_password_managers(member: Visitor) -> None:
    page = member.get("/password-change/").text
    assert 'value="alice@example.com" autocomplete="username"' in page


def test_a_change_that_comes_second_changes_nothing(
    app: Flask, alice: int, member: Visitor, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_password = accounts.set_password

    def after_a_reset(user: User, password: str) -> bool:
        user.security_stamp  # noqa: B018 (read before the other writes, as the request did)
        with app.app_context():
            fresh = {"password_hash": make_password("the reset was here first"), "security_stamp": "from-the-reset"}
            db.session.execute(update(User).where(User.id == alice).values(fresh))
            db.session.commit()
        return set_password(user, password)

    monkeypatch.setattr(accounts, "set_password", after_a_reset)
    answer = change(member)
    assert answer.location == "/login/"
    assert inbox.waiting() == 0
    assert not member.is_signed_in()
    assert Visitor(app).log_in(password="the reset was here first").location == "/account/"


def test_a_change_leaves_one_event(app: Flask, alice: int, member: Visitor) -> None:
    change(member)
    with app.app_context():
        entries = [entry.description for entry in events.latest(accounts.find_by_id(alice))]
    assert entries == ["Password changed", "Logged in"]


@pytest.mark.parametrize("path", ["/password-change/", "/password-change/done/", "/account/"])
def test_pages_of_an_account_need_a_login_and_come_back(alice: int, visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.location == f"/login/?next={quote(path, safe='')}"
    token = csrf_token(visitor.get(answer.location))
    fields = {"email": "alice@example.com", "password": PASSWORD, "csrf_token": token}
    assert visitor.client.post(answer.location, data=fields).location == path


def test_a_stranger_changes_nothing(app: Flask, alice: int, visitor: Visitor) -> None:
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    answer = visitor.submit("/login/", at="/password-change/", **fields)
    assert answer.location == "/login/?next=%2Fpassword-change%2F"
    assert Visitor(app).log_in().location == "/account/"


def test_password_managers_find_the_page(visitor: Visitor) -> None:
    answer = visitor.get("/.well-known/change-password")
    assert (answer.status_code, answer.location) == (302, "/password-change/")
