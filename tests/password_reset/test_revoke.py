"""The pages "This wasn't me" and "Secure my account" revoke links and sessions, whatever somebody else did first."""

import re
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from flask import Flask

from pwreset import accounts, outbox
from pwreset.accounts.tokens import token_generator
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import User
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, Visitor
from tests.support.outbox import event_kinds
from tests.support.pages import path_of, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD

THIEFS_PASSWORD = "a stranger chose these words"
PAGES = {"cancel": "/password-reset-cancel/", "notice": "/account-secure/"}


def links_in(mail: EmailMessage) -> list[str]:
    """Return the paths of all links that stand on lines of their own."""
    return [path_of(link) for link in re.findall(r"^(http\S+//[^/\s]+/\S+)$", text_of(mail), re.MULTILINE)]


@pytest.fixture
def reset_mail(alice: int, inbox: Inbox) -> EmailMessage:
    inbox.reset_link()
    return inbox.emails()[-1]


@pytest.fixture
def notice(app: Flask, alice: int, inbox: Inbox) -> EmailMessage:
    """Return the notice after a stranger who reads no email set a password, with a link that was printed somewhere."""
    stranger = Visitor(app)
    stranger.client.environ_base.update(REMOTE_ADDR="203.0.113.9", HTTP_USER_AGENT="Firefox/140 (Windows)")
    stranger.choose(inbox.reset_link(), THIEFS_PASSWORD)
    return inbox.deliver_one()


@pytest.fixture
def links(reset_mail: EmailMessage, notice: EmailMessage) -> dict[str, str]:
    """Return a link to each page."""
    return {"cancel": links_in(reset_mail)[1], "notice": links_in(notice)[0]}


def user_of(app: Flask, user_id: int) -> User:
    user = accounts.find_by_id(user_id)
    assert user is not None
    return user


def press(app: Flask, path: str) -> Any:
    """Open a page in a browser of its own and press its button."""
    return Visitor(app).submit(path)


def test_the_reset_email_has_a_second_link_that_cancels(reset_mail: EmailMessage) -> None:
    first, second = links_in(reset_mail)
    assert (first.split("/")[1], second.split("/")[1]) == ("password-reset-confirm", "password-reset-cancel")
    html = reset_mail.get_body(("html",))
    assert html is not None
    assert second in html.get_content()


def test_the_notice_leads_to_the_page_that_secures(notice: EmailMessage) -> None:
    assert [path.split("/")[1] for path in links_in(notice)] == ["account-secure"]
    html = notice.get_body(("html",))
    assert html is not None
    assert html.get_content().count(links_in(notice)[0]) == 3


def test_the_notice_says_when_from_where_and_with_what(notice: EmailMessage) -> None:
    assert re.search(
        r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC, from 203\.0\.113\.9,\nwith Firefox on Windows", text_of(notice)
    )


def test_the_notice_to_an_address_that_was_changed_has_no_key_to_the_account(
    app: Flask, alice: int, inbox: Inbox
) -> None:
    with app.app_context():
        outbox.enqueue("password_changed", "old@example.com", RequestInfo())
        db.session.commit()
    assert links_in(inbox.deliver_one()) == ["/password-reset/"]


@pytest.mark.parametrize("purpose", PAGES)
def test_opening_the_page_changes_nothing(app: Flask, alice: int, links: dict[str, str], purpose: str) -> None:
    with app.app_context():
        before = user_of(app, alice).get_id()
    for method in ("GET", "HEAD"):
        assert Visitor(app).client.open(links[purpose], method=method).status_code == 200
    with app.app_context():
        assert user_of(app, alice).get_id() == before


def test_cancelling_ends_links_and_sessions_and_leaves_the_password(
    app: Flask, alice: int, visitor: Visitor, inbox: Inbox
) -> None:
    visitor.log_in()
    inbox.reset_link()
    reset, cancel = links_in(inbox.emails()[-1])
    assert press(app, cancel).location == "/login/"
    assert "no longer valid" in Visitor(app).get(reset, follow_redirects=True).text
    assert not visitor.is_signed_in()
    assert Visitor(app).log_in().location == "/account/"
    assert event_kinds(app, alice)[-2:] == ["cancelled", "logged_in"]


def test_after_cancelling_the_owner_is_notified(app: Flask, reset_mail: EmailMessage) -> None:
    visitor = Visitor(app)
    visitor.submit(links_in(reset_mail)[1])
    assert "Every link we mailed you is useless now" in visitor.get("/login/").text


def test_securing_ends_the_strangers_password_and_session_and_emails_a_reset(
    app: Flask, alice: int, notice: EmailMessage, inbox: Inbox
) -> None:
    stranger = Visitor(app)
    stranger.log_in(password=THIEFS_PASSWORD)
    owner = Visitor(app)
    page = owner.submit(links_in(notice)[0])
    assert page.location == "/password-reset/done/"
    assert "alice@example.com" in owner.get(page.location).text
    assert (stranger.is_signed_in(), stranger.log_in(password=THIEFS_PASSWORD).status_code) == (False, 200)
    reset = inbox.deliver_one()
    assert reset["To"] == "alice@example.com"
    owner.choose("http://localhost" + links_in(reset)[0], NEW_PASSWORD)
    assert owner.log_in(password=NEW_PASSWORD).location == "/account/"
    assert "secured" in event_kinds(app, alice)


def test_an_account_that_was_secured_is_not_taken_for_one_never_finished(
    app: Flask, alice: int, notice: EmailMessage
) -> None:
    press(app, links_in(notice)[0])
    with app.app_context():
        assert user_of(app, alice).has_usable_password()


@pytest.mark.parametrize("purpose", PAGES)
def test_both_outlive_what_an_attacker_does_first(
    app: Flask, alice: int, links: dict[str, str], inbox: Inbox, purpose: str
) -> None:
    Visitor(app).log_in(password=THIEFS_PASSWORD)
    Visitor(app).choose(inbox.reset_link(), NEW_PASSWORD)
    Visitor(app).log_in(password=NEW_PASSWORD)
    assert press(app, links[purpose]).status_code == 302


@pytest.mark.parametrize("purpose", PAGES)
@pytest.mark.parametrize("other", ["reset", "invite", "cancel", "notice"])
def test_a_page_opens_for_its_own_purpose_alone(app: Flask, alice: int, purpose: str, other: str) -> None:
    with app.app_context():
        token = token_generator(other).make_token(user_of(app, alice))
    page = Visitor(app).get(f"{PAGES[purpose]}MQ/{token}")
    assert ("<form" in page.text) == (purpose == other)
    assert ("no longer valid" in page.text) == (purpose != other)


@pytest.mark.parametrize(("purpose", "days"), [("cancel", timedelta(hours=1)), ("notice", timedelta(days=7))])
def test_each_link_has_its_time(
    app: Flask, links: dict[str, str], purpose: str, days: timedelta, time_machine: Any
) -> None:
    now = utcnow()
    time_machine.move_to(now + days - timedelta(seconds=60))
    assert "<form" in Visitor(app).get(links[purpose]).text
    time_machine.move_to(now + days + timedelta(seconds=60))
    page = Visitor(app).get(links[purpose])
    assert (page.status_code, "This link has expired." in page.text, "<form" in page.text) == (200, True, False)


@pytest.mark.parametrize("purpose", PAGES)
def test_dead_links_look_alike_whatever_killed_them(
    app: Flask, alice: int, links: dict[str, str], purpose: str
) -> None:
    _, page, uid, token = links[purpose].split("/")
    tampered = token[:8] + ("A" if token[8] != "A" else "B") + token[9:]
    tries = [f"/{page}/{uid}/{tampered}", f"/{page}/Mg/{token}", f"/{page}/{uid}/x", f"/{page}/!/{token}"]
    pages = {Visitor(app).get(path).text for path in tries}
    with app.app_context():
        accounts.set_active(user_of(app, alice), active=False)
        db.session.commit()
    pages.add(Visitor(app).get(links[purpose]).text)
    assert len(pages) == 1
    assert "<form" not in pages.pop()


@pytest.mark.parametrize("purpose", PAGES)
def test_a_dead_link_does_nothing_when_it_is_posted(app: Flask, alice: int, visitor: Visitor, purpose: str) -> None:
    visitor.log_in()
    answer = visitor.submit("/account/", at=f"{PAGES[purpose]}MQ/abcdef.{'a' * 43}")
    assert answer.status_code == 200
    assert visitor.is_signed_in()


def test_after_cancelling_the_owner_need_not_wait_for_a_strangers_five_emails(
    app: Flask, alice: int, inbox: Inbox
) -> None:
    for _ in range(5):
        inbox.reset_link()
    inbox.let_a_minute_pass()
    Visitor(app).request_reset()
    inbox.deliver()
    assert inbox.waiting() == 1
    press(app, links_in(inbox.emails()[-1])[1])
    Visitor(app).request_reset()
    assert links_in(inbox.deliver_one())


def test_another_who_is_signed_in_here_stays_so(app: Flask, alice: int, links: dict[str, str]) -> None:
    bob = Visitor(app)
    with app.app_context():
        accounts.create("bob@example.com", PASSWORD)
    bob.log_in("bob@example.com")
    bob.submit(links["cancel"])
    assert bob.is_signed_in()
