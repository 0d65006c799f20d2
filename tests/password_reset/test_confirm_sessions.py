"""A new password ends the sessions of its account, and of eight simultaneous requests one sets it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pwreset import accounts
from pwreset.accounts.tokens import encode_uid
from tests.support.app import Visitor, add_user
from tests.support.pages import csrf_token, link_in, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.reset_pages import DEAD, SET_PASSWORD, events_of

# Sessions.


def test_opening_a_link_signs_nobody_out(app, visitor, link) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    visitor.log_in("bob@example.com")
    visitor.open_link(link)
    assert visitor.is_signed_in()


def test_refused_password_signs_nobody_out(app, visitor, link) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    visitor.log_in("bob@example.com")
    visitor.choose(link, "short")
    assert visitor.is_signed_in()


def test_setting_the_password_signs_out_the_session_in_this_browser(app, visitor, link) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    visitor.log_in("bob@example.com")
    visitor.choose(link)
    assert not visitor.is_signed_in()


@pytest.mark.parametrize("fields", [{}, {"remember": "y"}], ids=["for_now", "remembered"])
def test_setting_the_password_ends_every_session_of_the_account(fields, app, visitor, alice, inbox) -> None:
    others = [Visitor(app), Visitor(app)]
    for other in others:
        other.log_in(**fields)
    link = inbox.reset_link()
    assert all(other.is_signed_in() for other in others)
    visitor.choose(link)
    assert not any(other.is_signed_in() for other in others)


def test_setting_the_password_leaves_other_accounts_signed_in(app, visitor, link) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    bob = Visitor(app)
    bob.log_in("bob@example.com")
    visitor.choose(link)
    assert bob.is_signed_in()


def test_login_after_the_email_ends_the_link(app, visitor, link) -> None:
    Visitor(app).log_in()
    assert DEAD in visitor.open_link(link).text


def test_form_without_a_link_opened_in_this_browser_is_dead(app, visitor, link) -> None:
    visitor.open_link(link)
    assert DEAD in Visitor(app).get(SET_PASSWORD).text


def test_link_opened_for_one_account_opens_no_form_for_another(app, visitor, link, stored) -> None:
    bob = add_user(app, "bob@example.com", PASSWORD)
    form = visitor.open_link(link)
    path = f"/password-reset-confirm/{encode_uid(bob)}/set-password"
    fields = {"csrf_token": csrf_token(form), "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    for answer in (visitor.get(path), visitor.client.post(path, data=fields)):
        assert (answer.status_code, DEAD in answer.text) == (200, True)
    assert stored(bob).check_password(PASSWORD)


# The notice.


def test_owner_is_notified_at_the_address_of_the_account(visitor, link, inbox) -> None:
    visitor.choose(link)
    notice = inbox.deliver_one()
    assert notice["To"] == "alice@example.com"
    assert "password of your account" in text_of(notice)
    assert "was changed" in text_of(notice)


def test_refused_password_sends_no_notice(visitor, link, inbox) -> None:
    visitor.choose(link, "short")
    assert inbox.waiting() == 0


# Simultaneous requests.


def test_of_eight_simultaneous_posts_with_one_link_exactly_one_wins(app, link, inbox) -> None:
    words = ("amber", "blue", "copper", "dusty", "early", "faded", "green", "hasty")
    passwords = [f"{word} comets over quiet hills" for word in words]
    visitors = [Visitor(app) for _ in passwords]
    pages = [visitor.open_link(link) for visitor in visitors]
    start = threading.Barrier(len(passwords))

    def post(number: int) -> tuple[int, str]:
        fields = {"csrf_token": csrf_token(pages[number])}
        fields |= dict.fromkeys(("new_password1", "new_password2"), passwords[number])
        start.wait(timeout=30)
        answer = visitors[number].client.post(SET_PASSWORD, data=fields)
        return answer.status_code, answer.text

    with ThreadPoolExecutor(len(passwords)) as pool:
        answers = list(pool.map(post, range(len(passwords))))
    winners = [number for number, (status, _) in enumerate(answers) if status == 302]
    assert len(winners) == 1
    dead = [text for status, text in answers if status == 200]
    assert len(dead) == 7
    assert all(DEAD in text and "new_password1" not in text for text in dead)
    with app.app_context():
        user = accounts.find("alice@example.com")
        assert user is not None
        assert [n for n, password in enumerate(passwords) if user.check_password(password)] == winners
    assert inbox.waiting() == 1
    assert events_of(app).count("completed") == 1


def test_a_used_link_ends_the_cooldown(visitor, inbox) -> None:
    """The minute between two emails is against strangers who ask; a used link shows that the owner read the email."""
    visitor.submit("/register/", email="new@example.com")
    visitor.choose(link_in(inbox.deliver_one()), PASSWORD)
    visitor.request_reset("new@example.com")
    assert visitor.choose(link_in(inbox.deliver_one())).location == "/password-reset-complete/"


def test_a_link_that_was_only_opened_leaves_the_minute_as_it_is(visitor, inbox) -> None:
    visitor.submit("/register/", email="new@example.com")
    visitor.open_link(link_in(inbox.deliver_one()))
    visitor.request_reset("new@example.com")
    inbox.deliver()
    assert (len(inbox.emails()), inbox.waiting()) == (1, 1)
