"""The per-account cooldown: how its slot is claimed and released."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import update

from pwreset import accounts
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import User
from pwreset.outbox import EmailKind, cooldown
from pwreset.outbox.cooldown import Slot
from tests.support.app import add_user
from tests.support.passwords import PASSWORD


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    """Run every test inside the application."""
    with app.app_context():
        yield


def stored(user_id: int) -> User:
    """Return the account as the database has it."""
    db.session.rollback()
    user = accounts.find_by_id(user_id)
    assert user is not None
    return user


def set_start(user_id: int, start: datetime | None) -> None:
    db.session.execute(update(User).where(User.id == user_id).values(cooldown_started_at=start))
    db.session.commit()


def claim(user_id: int) -> Slot | datetime:
    return cooldown.claim(stored(user_id), EmailKind.PASSWORD_RESET)


def claimed(user_id: int) -> Slot:
    slot = claim(user_id)
    assert isinstance(slot, Slot)
    return slot


def test_a_second_email_within_the_interval_waits(alice: int) -> None:
    slot = claimed(alice)
    assert claim(alice) == slot.claimed_at + timedelta(minutes=1)


@pytest.mark.parametrize(("seconds", "free"), [(59, False), (61, True)])
def test_the_slot_is_free_again_after_the_interval(alice: int, seconds: int, free: bool) -> None:
    set_start(alice, utcnow() - timedelta(seconds=seconds))
    assert isinstance(claim(alice), Slot) is free


@pytest.mark.parametrize("before", [None, utcnow() - timedelta(hours=1)])
def test_a_released_slot_restores_the_cooldown_before_it(alice: int, before: datetime | None) -> None:
    set_start(alice, before)
    cooldown.release(claimed(alice))
    db.session.commit()
    assert stored(alice).cooldown_started_at == before


def test_a_slot_that_another_attempt_claimed_since_is_not_released(alice: int) -> None:
    slot = claimed(alice)
    later = utcnow() + timedelta(minutes=2)
    set_start(alice, later)
    cooldown.release(slot)
    db.session.commit()
    assert stored(alice).cooldown_started_at == later


def test_each_account_has_its_own_slot(app: Flask, alice: int) -> None:
    bob = add_user(app, "bob@example.com", PASSWORD)
    assert [claimed(alice).user_id, claimed(bob).user_id] == [alice, bob]


def test_a_started_cooldown_is_a_claimed_slot(alice: int) -> None:
    cooldown.start(stored(alice))
    db.session.commit()
    assert not isinstance(claim(alice), Slot)
