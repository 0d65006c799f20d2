"""Accounts: which addresses are equal, and that credentials change only by compare-and-set."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, update

from pwreset import accounts
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import User
from pwreset.outbox.retention import purge
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, Visitor, add_user
from tests.support.databases import Database
from tests.support.passwords import NEW_PASSWORD, PASSWORD


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    """Run every test inside the application."""
    with app.app_context():
        yield


def write(user_id: int, **values: Any) -> None:
    """Change an account on a connection of its own, behind this session's back."""
    with db.engine.begin() as connection:
        connection.execute(update(User).where(User.id == user_id).values(**values))


def stored(user_id: int) -> User:
    """Return the account as the database has it."""
    db.session.rollback()
    user = accounts.find_by_id(user_id)
    assert user is not None
    return user


def credentials(user_id: int) -> tuple[str, str]:
    user = stored(user_id)
    return user.password_hash, user.security_stamp


# --- who is the same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("josé@example.com", "JOSÉ@example.com"),
        ("josé@example.com", "jose\u0301@example.com"),
        ("alice@example.com", "ALICE@example.com"),
        ("alice@example.com", "ａlice@example.com"),
        ("strasse@example.com", "straße@example.com"),
        ("ﬁle@example.com", "file@example.com"),
        ("σοφός@example.com", "ΣΟΦΌΣ@example.com"),
        ("mike@example.com", "MIKE@example.com"),
        ("kelvin@example.com", "\u212aelvin@example.com"),
    ],
)
def test_another_spelling_of_an_address_is_no_second_account(first: str, second: str) -> None:
    user = accounts.create(first)
    assert accounts.create(second) is None
    assert accounts.find(second) == user


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("josé@example.com", "jose@example.com"),
        ("mike@example.com", "mıke@example.com"),
        ("a.b@example.com", "ab@example.com"),
        ("a+b@example.com", "a@example.com"),
        ("a@example.com", "a@example.org"),
        ("аlice@example.com", "alice@example.com"),
    ],
)
def test_a_different_address_is_another_account(first: str, second: str) -> None:
    accounts.create(first)
    assert accounts.create(second) is not None


def test_a_conflict_changes_nothing(alice: int) -> None:
    before = credentials(alice)
    accounts.create("ALICE@example.com", NEW_PASSWORD)
    user = stored(alice)
    assert ((user.password_hash, user.security_stamp), user.email) == (before, "alice@example.com")


def test_of_accounts_made_at_the_same_time_one_is_made(app: Flask) -> None:
    made: list[bool] = []
    start = threading.Barrier(6)

    def make() -> None:
        with app.app_context():
            start.wait()
            made.append(accounts.create("new@example.com", None) is not None)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 5 + [True]


def test_an_account_without_a_password_has_djangos_marker() -> None:
    user = accounts.create("new@example.com")
    assert user is not None
    assert (user.password_hash[0], user.has_usable_password()) == ("!", False)


def test_every_account_has_a_security_stamp_of_its_own(app: Flask, alice: int) -> None:
    bob = add_user(app, "bob@example.com", PASSWORD)
    first, second = stored(alice).security_stamp, stored(bob).security_stamp
    assert first != second
    assert len(first) == 32


@pytest.mark.parametrize("user_id", [0, -1, 999, 2**31 - 1])
def test_an_id_without_an_account_is_nobody(alice: int, user_id: int) -> None:
    assert accounts.find_by_id(user_id) is None


# --- compare-and-set


def test_a_password_and_the_security_stamp_change_together(alice: int) -> None:
    before = credentials(alice)
    assert accounts.set_password(stored(alice), NEW_PASSWORD) is True
    db.session.commit()
    after = credentials(alice)
    assert (before[0] != after[0], before[1] != after[1]) == (True, True)
    assert stored(alice).check_password(NEW_PASSWORD)


STALE = [{"stamp": "another"}, {"is_active": False}]


@pytest.mark.parametrize("change", STALE)
def test_a_password_judged_by_stale_credentials_is_not_set(alice: int, change: dict[str, Any]) -> None:
    user = stored(alice)
    write(alice, **change)
    assert accounts.set_password(user, NEW_PASSWORD) is False
    db.session.commit()
    assert not stored(alice).check_password(NEW_PASSWORD)


@pytest.mark.parametrize("change", STALE)
def test_a_login_judged_by_stale_credentials_is_not_dated(alice: int, change: dict[str, Any]) -> None:
    user = stored(alice)
    write(alice, **change)
    assert accounts.record_login(user) is False
    db.session.commit()
    assert stored(alice).last_login is None


@pytest.mark.parametrize("change", [{"last_login": utcnow()}, {"mailed_at": utcnow()}, {"password_hash": "$new$"}])
def test_a_login_meanwhile_does_not_stop_a_new_password(alice: int, change: dict[str, Any]) -> None:
    user = stored(alice)
    write(alice, **change)
    assert accounts.set_password(user, NEW_PASSWORD) is True


def test_revoking_sessions_changes_only_the_security_stamp(alice: int) -> None:
    before = credentials(alice)
    assert accounts.revoke_sessions(stored(alice)) is True
    db.session.commit()
    after = credentials(alice)
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_a_hash_made_anew_meanwhile_does_not_save_the_sessions(alice: int) -> None:
    user = stored(alice)
    stamp = user.security_stamp
    write(alice, password_hash="$argon2id$another")
    assert accounts.revoke_sessions(user) is True
    db.session.commit()
    assert stored(alice).security_stamp != stamp


def test_sessions_that_somebody_else_ended_are_not_ended_again(alice: int) -> None:
    user = stored(alice)
    write(alice, security_stamp="another")
    assert accounts.revoke_sessions(user) is False
    db.session.commit()
    assert stored(alice).security_stamp == "another"


@pytest.mark.parametrize("active", [True, False])
def test_deactivating_or_activating_an_account_changes_its_security_stamp(alice: int, active: bool) -> None:
    before = stored(alice).security_stamp
    accounts.set_active(stored(alice), active=active)
    db.session.commit()
    after = stored(alice)
    assert (after.is_active, after.security_stamp != before) == (active, True)


def test_of_passwords_set_at_the_same_time_one_is_set(app: Flask, alice: int) -> None:
    passwords = [f"{PASSWORD} number {number}" for number in range(6)]
    start = threading.Barrier(len(passwords))
    won: list[str] = []

    def choose(password: str) -> None:
        with app.app_context():
            user = accounts.find_by_id(alice)
            db.session.rollback()
            user = accounts.find_by_id(alice)
            start.wait()
            if accounts.set_password(user, password):
                won.append(password)
            db.session.commit()

    # Each has read the account before any writes: SQLite then lets one writer through and tells the others so.
    threads = [threading.Thread(target=choose, args=[password]) for password in passwords]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(won) == 1
    assert [password for password in passwords if stored(alice).check_password(password)] == won


# --- authenticate


def test_authentication_runs_the_same_statements_for_known_and_unknown(app: Flask, alice: int) -> None:
    add_user(app, "carol@example.com", None)
    seen: dict[str, list[str]] = {}
    for email in ("alice@example.com", "carol@example.com", "nobody@example.com"):
        statements = seen.setdefault(email, [])

        def note(_conn: Any, _cursor: Any, statement: str, *_: Any, to: list[str] = statements) -> None:
            to.append(statement)

        event.listen(db.engine, "before_cursor_execute", note)
        accounts.authenticate(email, "wrong", RequestInfo())
        db.session.commit()
        event.remove(db.engine, "before_cursor_execute", note)
    first, *others = seen.values()
    assert len(first) == 4  # the attempt is locked and counted, the account looked up, the failure recorded
    assert others == [first, first]


# --- purging


def unfinished(**values: Any) -> int:
    """Register an account eight days ago that has no password yet, with these differences, and return its id."""
    user = accounts.create("new@example.com", registered=True)
    assert user is not None
    write(user.id, **{"registered_at": utcnow() - timedelta(days=8), **values})
    return user.id


@pytest.mark.parametrize("mailed_at", [None, utcnow() - timedelta(days=3, hours=2)])
def test_an_account_never_finished_is_purged(mailed_at: datetime | None) -> None:
    unfinished(cooldown_started_at=mailed_at)
    assert accounts.purge_unfinished() == 1
    assert accounts.find("new@example.com") is None


@pytest.mark.parametrize(
    "values",
    [
        {"registered_at": utcnow() - timedelta(days=6, hours=23)},
        {"registered_at": None, "created_at": utcnow() - timedelta(days=800)},
        {"is_active": False},
        {"last_login": utcnow()},
        {"mailed_at": utcnow() - timedelta(days=2, hours=23)},
        {"password_hash": "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"},
    ],
)
def test_other_accounts_are_kept(values: dict[str, Any]) -> None:
    unfinished(**values)
    assert accounts.purge_unfinished() == 0
    assert accounts.find("new@example.com") is not None


def test_an_account_that_other_code_inserted_is_not_purged_nor_are_its_events(app: Flask, database: Database) -> None:
    """As an import from Django does it: an unusable password, never logged in, years old."""
    database.query(
        "INSERT INTO users (id, email, email_key, password_hash, stamp, is_active, created_at)"
        " VALUES (7, 'moved@example.com', 'moved@example.com', '!moved', 's', true, '2020-01-01 00:00:00.000000')",
    )
    recent = utcnow().strftime("%Y-%m-%d %H:%M:%S.%f")
    database.query("INSERT INTO security_events (user_id, kind, created_at) VALUES (7, 'changed', ?)", recent)
    unfinished()
    purge()
    assert database.query("SELECT id FROM users") == [(7,)]
    assert database.query("SELECT user_id FROM security_events") == [(7,)]


def test_a_registration_for_an_account_from_elsewhere_does_not_make_it_one_to_purge(app: Flask, inbox: Inbox) -> None:
    moved = add_user(app, "moved@example.com", None)
    Visitor(app).submit("/register/", email="moved@example.com")
    inbox.deliver_one()
    assert stored(moved).registered_at is None


def test_an_account_that_registration_created_is_marked(app: Flask, inbox: Inbox) -> None:
    Visitor(app).submit("/register/", email="new@example.com")
    inbox.deliver_one()
    user = accounts.find("new@example.com")
    assert user is not None
    assert user.registered_at == user.created_at


def test_a_used_id_is_never_handed_out_again() -> None:
    purged = unfinished()
    purge()
    later = accounts.create("later@example.com")
    assert later is not None
    assert later.id > purged
