"""Every cause of an invalid link, and the one page that all of them show."""

import base64
import time
from collections.abc import Callable

import pytest
import time_machine
from flask import Flask
from sqlalchemy import update

from pwreset import accounts
from pwreset.accounts.tokens import encode_uid
from pwreset.extensions import db
from pwreset.models import User
from tests.support.app import Visitor
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.reset_pages import DEAD, EXPIRED, SET_PASSWORD, send


def change(app: Flask, user_id: int, **values) -> None:
    with app.app_context():
        db.session.execute(update(User).where(User.id == user_id).values(**values))
        db.session.commit()


def spoil(link: str) -> str:
    return link[:-5] + ("AAAA" if link[-5:-1] != "AAAA" else "BBBB") + link[-1]


def other_user(link: str) -> str:
    return link.replace("/MQ/", f"/{encode_uid(4711)}/")


def uid_of(text: str) -> Callable[[str], str]:
    encoded = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    return lambda link: link.replace("/MQ/", f"/{encoded}/")


@pytest.mark.parametrize(
    "changed",
    [
        spoil,
        other_user,
        uid_of("0"),
        uid_of("-1"),
        uid_of("01"),
        uid_of(str(2**31)),
        uid_of(str(2**63)),
        uid_of("9" * 5000),
        uid_of("1e0"),
        uid_of("6f1c7a3e-0000-4000-8000-0123456789ab"),
        lambda link: link.replace("/MQ/", "/MQ==/"),
        lambda link: link.replace("/MQ/", "/MR/"),
        lambda link: link.replace("/MQ/", "/zzzzzzzzzzzzz/"),
        lambda link: link.replace("/MQ/", "/%00/"),
        lambda link: link.replace("/MQ/", "/%E2%82%AC/"),
        lambda link: link.replace("/MQ/", "/%FF%FE/"),
        lambda link: link.replace("/MQ/", "/" + "M" * 100_000 + "/"),
        lambda link: link.rpartition("/")[0] + "/x",
        lambda link: link.rpartition("/")[0] + "/set-password",
        lambda link: link + "%00",
        lambda link: link + "%20",
        lambda link: link + "%E2%82%AC",
        lambda link: link + "A" * 100_000,
    ],
)
def test_changed_link_is_dead_and_without_a_form(changed, visitor, link, form_page) -> None:
    page = Visitor(visitor.client.application).get(path_of(changed(link)))
    assert (page.status_code, DEAD in page.text) == (200, True)
    assert "<form" not in page.text


def test_post_to_a_changed_link_sets_nothing(visitor, form_page, link, stored, alice) -> None:
    fields = {"csrf_token": csrf_token(form_page), "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    answer = visitor.client.post(path_of(spoil(link)), data=fields)
    assert (answer.status_code, DEAD in answer.text) == (200, True)
    assert stored(alice).check_password(PASSWORD)


def used(app: Flask, link: str) -> str:
    Visitor(app).choose(link)
    return link


def deactivated(app: Flask, link: str) -> str:
    change(app, 1, is_active=False)
    return link


def deleted(app: Flask, link: str) -> str:
    with app.app_context():
        db.session.delete(accounts.find_by_id(1))
        db.session.commit()
    return link


def address_changed(app: Flask, link: str) -> str:
    change(app, 1, email="alice@new.example.com", email_key="alice@new.example.com")
    return link


def signed_out_everywhere(app: Flask, link: str) -> str:
    change(app, 1, security_stamp="another")
    return link


@pytest.mark.parametrize(
    "kill",
    [used, deactivated, deleted, address_changed, signed_out_everywhere, lambda _, link: other_user(link)],
    ids=["used", "deactivated", "deleted", "address_changed", "signed_out_everywhere", "unknown_user"],
)
def test_dead_page_is_the_same_to_the_byte_for_every_cause(kill, app, visitor, link) -> None:
    tampered = visitor.get(path_of(spoil(link)))
    dead = visitor.get(path_of(kill(app, link)))
    assert (dead.status_code, dead.data) == (tampered.status_code, tampered.data)
    assert "Set-Cookie" not in dead.headers


OPEN_AGAIN = "open it from the mail once more"


def test_a_browser_that_lost_its_session_is_asked_to_open_the_link_again(app, visitor, link) -> None:
    visitor.get(path_of(link))
    page = Visitor(app).get(SET_PASSWORD)
    assert (DEAD in page.text, OPEN_AGAIN in page.text) == (True, True)


def test_other_browsers_are_not_asked_to_open_a_dead_link_again(app, visitor, form_page, link) -> None:
    assert OPEN_AGAIN not in Visitor(app).get(path_of(spoil(link))).text
    used(app, link)
    answer = send(visitor, form_page, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    assert (DEAD in answer.text, OPEN_AGAIN in answer.text) == (True, False)


def test_dead_page_leads_to_a_new_link(visitor, link) -> None:
    page = visitor.get(path_of(spoil(link)))
    assert "<title>Password reset unsuccessful · localhost</title>" in page.text
    assert '<a class="button" href="/password-reset/">Ask for a new link</a>' in page.text


def test_expired_link_says_so(visitor, link, stored, alice) -> None:
    with time_machine.travel(3601 + time.time()):
        page = visitor.open_link(link)
    assert EXPIRED in page.text
    assert "<form" not in page.text
    assert DEAD not in page.text


def test_form_that_expires_while_it_is_open_says_so_and_sets_nothing(visitor, form_page, stored, alice) -> None:
    with time_machine.travel(3601 + time.time()):
        answer = send(visitor, form_page, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    assert (answer.status_code, EXPIRED in answer.text) == (200, True)
    assert stored(alice).check_password(PASSWORD)


@pytest.mark.parametrize("kill", [used, deactivated, address_changed, lambda _, link: spoil(link)])
def test_old_link_that_is_dead_for_another_reason_does_not_say_expired(kill, app, visitor, link) -> None:
    dead = kill(app, link)
    with time_machine.travel(3601 + time.time()):
        page = visitor.open_link(dead)
    assert DEAD in page.text
    assert EXPIRED not in page.text


def test_expired_invitation_says_so(visitor, invitation) -> None:
    with time_machine.travel(259_201 + time.time()):
        assert EXPIRED in visitor.open_link(invitation).text
