"""Logging in: one message for every error, and a session of its own."""

import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from sqlalchemy import event, update

from pwreset import accounts
from pwreset.accounts import service
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import RevokedSession, User
from pwreset.outbox.retention import purge
from pwreset.passwords.hashing import make_password
from pwreset.request_info import RequestInfo
from tests.support.app import MakeApp, Visitor, add_user
from tests.support.pages import csrf_token
from tests.support.passwords import NEW_PASSWORD, PASSWORD

COOKIE = "pwreset_session"
FRESH_SESSION = {"_user_id", "_fresh", "_id", "_permanent", "_session_id", "_began_at", "_seen_at"}
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def session_of(app: Flask, visitor: Visitor) -> dict[str, Any]:
    """Return what the visitor's session cookie holds."""
    cookie = visitor.client.get_cookie(COOKIE)
    if cookie is None:
        return {}
    return SecureCookieSessionInterface().get_signing_serializer(app).loads(cookie.value)


def column(app: Flask, user_id: int, name: str) -> Any:
    """Return one value of an account, as the database has it."""
    with app.app_context():
        return getattr(accounts.find_by_id(user_id), name)


def write(app: Flask, user_id: int, **values: Any) -> None:
    """Change an account behind the application's back."""
    with app.app_context():
        db.session.execute(update(User).where(User.id == user_id).values(**values))
        db.session.commit()


def deactivate(app: Flask, user_id: int) -> None:
    with app.app_context():
        accounts.set_active(accounts.find_by_id(user_id), active=False)
        db.session.commit()


@contextmanager
def after_commit(number: int, action: Callable[[], None]) -> Iterator[None]:
    """Let another connection act right after one of the next commits of this process's sessions, once."""
    passed = count(1)

    def act(_session: object) -> None:
        if next(passed) == number:
            thread = threading.Thread(target=action)
            thread.start()
            thread.join()

    event.listen(db.session, "after_commit", act)
    yield
    event.remove(db.session, "after_commit", act)


def page_after_failure(app: Flask, email: str, password: str) -> tuple[int, str]:
    """Return status and page of a failed login, without what differs between any two."""
    visitor = Visitor(app)
    page = visitor.log_in(email, password)
    assert not visitor.is_signed_in()
    return page.status_code, page.text.replace(csrf_token(page), "TOKEN").replace(email, "ADDRESS")


def test_the_right_password_opens_the_account(alice: int, visitor: Visitor) -> None:
    answer = visitor.log_in()
    assert (answer.status_code, answer.location) == (302, "/account/")
    assert visitor.is_signed_in()


@pytest.mark.parametrize(
    "email", ["ALICE@example.com", "alice@EXAMPLE.com", " alice@example.com", "ａlice@example.com"]
)
def test_the_address_may_be_spelled_in_other_ways(alice: int, visitor: Visitor, email: str) -> None:
    assert visitor.log_in(email).location == "/account/"


def test_every_failure_shows_the_same_page(app: Flask, alice: int) -> None:
    add_user(app, "carol@example.com", None)
    deactivate(app, add_user(app, "david@example.com", PASSWORD))
    wrong = page_after_failure(app, "alice@example.com", NEW_PASSWORD)
    unknown = page_after_failure(app, "nobody@example.com", PASSWORD)
    deactivated = page_after_failure(app, "david@example.com", PASSWORD)
    unusable = page_after_failure(app, "carol@example.com", PASSWORD)
    assert wrong[0] == 200
    assert "do not match an account" in wrong[1]
    assert wrong == unknown == deactivated == unusable


def test_the_unusable_marker_is_no_password(app: Flask) -> None:
    carol = add_user(app, "carol@example.com", None)
    visitor = Visitor(app)
    visitor.log_in("carol@example.com", column(app, carol, "password_hash"))
    assert not visitor.is_signed_in()


@pytest.mark.parametrize(
    "near", [PASSWORD.upper(), PASSWORD + " ", " " + PASSWORD, PASSWORD[:-1], PASSWORD + "\0", PASSWORD + "x"]
)
def test_every_character_of_a_password_counts(alice: int, visitor: Visitor, near: str) -> None:
    visitor.log_in(password=near)
    assert not visitor.is_signed_in()


@pytest.mark.parametrize(
    "password",
    [
        "  spaces at both ends  ",
        "пароль из многих букв",
        "émigré naïveté à la carte",
        "🦓🦓🦓 zebra herd 🦓🦓🦓",
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_spaces_and_unicode_count(app: Flask, password: str, form: Any) -> None:
    add_user(app, "bob@example.com", password)
    typed = unicodedata.normalize(form, password)
    assert Visitor(app).log_in("bob@example.com", typed).location == "/account/"


def test_a_password_is_never_sent_back(alice: int, visitor: Visitor) -> None:
    assert "not my password" not in visitor.log_in(password="not my password").text


@pytest.mark.parametrize("field", ["email", "password"])
def test_an_empty_field_is_named(alice: int, visitor: Visitor, field: str) -> None:
    page = visitor.submit("/login/", **{"email": "alice@example.com", "password": PASSWORD, field: ""})
    assert f'id="{field}_error"' in page.text


def test_a_password_too_long_to_be_one_is_refused_on_the_page(alice: int, visitor: Visitor) -> None:
    page = visitor.log_in(password="x" * 4097)
    assert page.status_code == 200
    assert "at most 1,024 characters" in page.text


def test_a_failed_login_keeps_the_address_in_the_form(alice: int, visitor: Visitor) -> None:
    assert 'value="alice@example.com"' in visitor.log_in(password="wrong").text


def test_a_login_is_dated(app: Flask, alice: int, visitor: Visitor) -> None:
    before = utcnow()
    visitor.log_in()
    assert before <= column(app, alice, "last_login") <= utcnow()


def test_a_failed_login_is_not_dated(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in(password="wrong")
    assert column(app, alice, "last_login") is None


# --- the session


def test_without_remember_the_cookie_ends_with_the_browser(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    cookie = visitor.client.get_cookie(COOKIE)
    assert (cookie.expires, cookie.max_age) == (None, None)


@pytest.mark.parametrize("days", [14, 3])
def test_with_remember_the_cookie_lives_as_many_days_as_set(make_app: MakeApp, days: int) -> None:
    app = make_app(SESSION_LIFETIME_DAYS=days)
    add_user(app, "alice@example.com", PASSWORD)
    answer = Visitor(app).log_in(remember="y")
    expires = answer.headers["Set-Cookie"].partition("Expires=")[2].partition(";")[0]
    left = parsedate_to_datetime(expires) - datetime.now(UTC)
    assert abs(left - timedelta(days=days)) < timedelta(minutes=1)


def test_a_remembered_session_ends_after_its_days(make_app: MakeApp, time_machine) -> None:
    app = make_app(SESSION_LIFETIME_DAYS=3)
    add_user(app, "alice@example.com", PASSWORD)
    visitor = Visitor(app)
    visitor.log_in(remember="y")
    kept = visitor.client.get_cookie(COOKIE).value
    time_machine.move_to(datetime.now(UTC) + timedelta(days=3, seconds=2))
    thief = Visitor(app)
    thief.client.set_cookie(COOKIE, kept)
    assert not thief.is_signed_in()


def test_a_copied_cookie_is_dead_once_its_session_was_logged_out(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in(remember="y")
    thief, elsewhere = Visitor(app), Visitor(app)
    thief.client.set_cookie(COOKIE, visitor.client.get_cookie(COOKIE).value)
    elsewhere.log_in()
    assert thief.is_signed_in()
    visitor.log_out()
    assert (thief.is_signed_in(), elsewhere.is_signed_in()) == (False, True)


def test_a_login_ends_the_session_that_was_there_before(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    copy = Visitor(app)
    copy.client.set_cookie(COOKIE, visitor.client.get_cookie(COOKIE).value)
    visitor.submit("/account/", at="/login/", email="alice@example.com", password=PASSWORD)
    assert (copy.is_signed_in(), visitor.is_signed_in()) == (False, True)


@pytest.mark.parametrize("page", ["/healthz", "/login/"])
def test_a_revoked_session_stays_revoked_even_if_its_cookie_is_signed_again(
    app: Flask, alice: int, visitor: Visitor, time_machine, page: str
) -> None:
    visitor.log_in(remember="y")
    thief = Visitor(app)
    thief.client.set_cookie(COOKIE, visitor.client.get_cookie(COOKIE).value)
    visitor.log_out()
    now = datetime.now(UTC)
    for days in range(1, 20, 3):
        time_machine.move_to(now + timedelta(days=days))
        thief.get(page)
    with app.app_context():
        purge()
        assert db.session.query(RevokedSession).count() == 0
    assert not thief.is_signed_in()


def test_a_remembered_session_lives_as_long_as_it_is_used(make_app: MakeApp, time_machine) -> None:
    app = make_app(SESSION_MAXIMUM_DAYS=60)
    add_user(app, "alice@example.com", PASSWORD)
    visitor = Visitor(app)
    visitor.log_in(remember="y")
    now = datetime.now(UTC)
    for days in (10, 20, 30):
        time_machine.move_to(now + timedelta(days=days))
        assert visitor.is_signed_in()


@pytest.mark.parametrize(("settings", "days"), [({}, 30), ({"SESSION_MAXIMUM_DAYS": 7}, 7)])
def test_a_session_ends_after_thirty_days_however_often_it_is_used(
    make_app: MakeApp, time_machine, settings: dict[str, int], days: int
) -> None:
    """ASVS 5.0, 7.3.2; NIST SP 800-63B-4, 2.1.3. The setting is another end."""
    app = make_app(**settings)
    add_user(app, "alice@example.com", PASSWORD)
    visitor = Visitor(app)
    visitor.log_in(remember="y")
    now = datetime.now(UTC)
    for day in range(0, days, 6):
        time_machine.move_to(now + timedelta(days=day))
        assert visitor.is_signed_in()
    time_machine.move_to(now + timedelta(days=days, seconds=2))
    assert not visitor.is_signed_in()
    visitor.log_in(remember="y")
    assert visitor.is_signed_in()


def test_a_session_may_be_logged_out_twice(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    copy = Visitor(app)
    copy.client.set_cookie(COOKIE, visitor.client.get_cookie(COOKIE).value)
    token = csrf_token(copy.get("/logout/"))
    visitor.log_out()
    assert copy.client.post("/logout/", data={"csrf_token": token}).status_code == 302


@pytest.mark.parametrize(("days", "left"), [(14, 1), (16, 0)])
def test_revoked_sessions_are_stored_until_their_cookies_have_expired(
    app: Flask, alice: int, visitor: Visitor, time_machine, days: int, left: int
) -> None:
    visitor.log_in()
    visitor.log_out()
    time_machine.move_to(datetime.now(UTC) + timedelta(days=days))
    with app.app_context():
        purge()
        assert db.session.query(RevokedSession).count() == left


def test_the_session_is_a_new_one(app: Flask, alice: int, visitor: Visitor) -> None:
    with visitor.client.session_transaction() as session:
        session["planted"] = "by somebody else"
    visitor.submit("/register/", email="someone@example.com")
    visitor.request_reset("other@example.com")
    visitor.log_in()
    assert set(session_of(app, visitor)) == FRESH_SESSION


def test_each_session_has_an_id_of_its_own(app: Flask, alice: int, visitor: Visitor) -> None:
    ids = set()
    for _ in range(5):
        visitor.log_in()
        ids.add(session_of(app, visitor)["_session_id"])
        visitor.log_out()
    assert len(ids) == 5
    assert {len(session_id) for session_id in ids} == {24}  # of 18 random bytes


def test_the_csrf_token_is_a_new_one(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.get("/login/")
    before = session_of(app, visitor)["csrf_token"]
    visitor.log_in()
    visitor.get("/account/")
    assert session_of(app, visitor)["csrf_token"] != before


def test_a_form_from_before_the_login_no_longer_counts(alice: int, visitor: Visitor) -> None:
    before = csrf_token(visitor.get("/login/"))
    visitor.log_in()
    visitor.get("/account/")
    answer = visitor.client.post("/account/sign-out-everywhere/", data={"csrf_token": before})
    assert answer.status_code == 400
    assert visitor.is_signed_in()


def test_who_is_logged_in_is_sent_on(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.get("/login/").location == "/account/"


def test_who_is_logged_in_is_sent_on_to_next(alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.get("/login/?next=/password-change/").location == "/password-change/"


def test_a_login_as_another_leaves_nothing_of_the_first(app: Flask, alice: int, visitor: Visitor) -> None:
    bob = add_user(app, "bob@example.com", PASSWORD)
    visitor.log_in(remember="y")
    visitor.request_reset("alice@example.com")
    with app.app_context():
        accounts.revoke_sessions(accounts.find_by_id(alice))
        db.session.commit()
    visitor.log_in("bob@example.com")
    session = session_of(app, visitor)
    assert session["_user_id"].startswith(f"{bob}.")
    assert set(session) == FRESH_SESSION


def test_a_login_while_another_is_logged_in_mixes_nothing(app: Flask, alice: int, visitor: Visitor) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    visitor.log_in()
    visitor.submit("/account/", at="/login/", email="bob@example.com", password=PASSWORD)
    page = visitor.get("/account/").text
    assert ("alice@example.com" in page, "bob@example.com" in page) == (False, True)


def test_a_failed_login_leaves_who_is_logged_in(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    answer = visitor.submit("/account/", at="/login/", email="bob@example.com", password=PASSWORD)
    assert "do not match" in answer.text
    assert "alice@example.com" in visitor.get("/account/").text


@pytest.mark.parametrize(
    "forged",
    ["", "1", "1.", "1.security_stamp", ".", "x.y", "-1.s", "²." + "s", "٣.s"],
)
def test_a_session_that_names_no_live_account_is_signed_out(app: Flask, alice: int, forged: str) -> None:
    visitor = Visitor(app)
    with visitor.client.session_transaction() as session:
        session["_user_id"] = forged
    assert visitor.get("/account/").status_code == 302


# --- re-hashing


def test_a_hash_of_older_parameters_is_made_anew_at_login(app: Flask, alice: int, visitor: Visitor) -> None:
    write(app, alice, password_hash=CHEAP.hash(PASSWORD))
    visitor.log_in()
    assert column(app, alice, "password_hash").startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert Visitor(app).log_in().location == "/account/"


def test_making_the_hash_anew_ends_no_session(app: Flask, alice: int) -> None:
    other, visitor = Visitor(app), Visitor(app)
    other.log_in()
    write(app, alice, password_hash=CHEAP.hash(PASSWORD))
    visitor.log_in()
    assert (other.is_signed_in(), visitor.is_signed_in()) == (True, True)


def test_a_hash_of_todays_parameters_is_kept(app: Flask, alice: int, visitor: Visitor) -> None:
    before = column(app, alice, "password_hash")
    visitor.log_in()
    assert column(app, alice, "password_hash") == before


def test_a_wrong_password_leaves_an_old_hash_alone(app: Flask, alice: int, visitor: Visitor) -> None:
    old = CHEAP.hash(PASSWORD)
    write(app, alice, password_hash=old)
    visitor.log_in(password="wrong")
    assert column(app, alice, "password_hash") == old


@pytest.fixture
def reset_during_check(app: Flask, alice: int, monkeypatch: pytest.MonkeyPatch):
    """Let a reset finish while a login checks the old password: after it read the row, before it writes."""
    write(app, alice, password_hash=CHEAP.hash(PASSWORD))
    check = service.check_password

    def check_slowly(password: str, encoded: str | None) -> bool:
        def reset() -> None:
            write(app, alice, password_hash=make_password(NEW_PASSWORD), security_stamp="from-the-reset")

        thread = threading.Thread(target=reset)
        thread.start()
        thread.join()
        return check(password, encoded)

    monkeypatch.setattr(service, "check_password", check_slowly)
    yield
    monkeypatch.undo()


def test_a_login_that_races_a_reset_fails(app: Flask, reset_during_check: None) -> None:
    visitor = Visitor(app)
    assert visitor.log_in().status_code == 200
    assert not visitor.is_signed_in()


def test_a_login_that_races_a_reset_does_not_bring_the_old_password_back(
    app: Flask, alice: int, reset_during_check: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Visitor(app).log_in()
    monkeypatch.undo()
    assert column(app, alice, "security_stamp") == "from-the-reset"
    assert Visitor(app).log_in(password=PASSWORD).status_code == 200
    assert Visitor(app).log_in(password=NEW_PASSWORD).location == "/account/"


def test_a_session_started_with_the_old_password_does_not_survive_a_reset_right_after(app: Flask, alice: int) -> None:
    visitor = Visitor(app)
    token = csrf_token(visitor.get("/login/"))

    def reset() -> None:
        write(app, alice, password_hash=make_password(NEW_PASSWORD), security_stamp="from-the-reset")

    fields = {"email": "alice@example.com", "password": PASSWORD, "csrf_token": token}
    with after_commit(2, reset):  # the first commit counts the try
        assert visitor.client.post("/login/", data=fields).status_code == 302
    assert column(app, alice, "security_stamp") == "from-the-reset"
    assert not visitor.is_signed_in()


def test_logins_and_resets_at_the_same_time_leave_one_password(app: Flask, alice: int) -> None:
    write(app, alice, password_hash=CHEAP.hash(PASSWORD))
    start = threading.Barrier(5)
    resets: list[bool] = []

    def log_in() -> None:
        start.wait()
        with app.app_context():
            accounts.authenticate("alice@example.com", PASSWORD, RequestInfo())
            db.session.commit()

    def reset() -> None:
        start.wait()
        with app.app_context():
            while not accounts.set_password(accounts.find_by_id(alice), NEW_PASSWORD):
                db.session.rollback()
            db.session.commit()
            resets.append(True)

    threads = [threading.Thread(target=log_in) for _ in range(4)] + [threading.Thread(target=reset)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resets == [True]
    assert Visitor(app).log_in(password=NEW_PASSWORD).location == "/account/"
    assert Visitor(app).log_in(password=PASSWORD).status_code == 200
