"""Counters: each event counts once, together with the change that it belongs to, in every process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine
from flask import Flask

from pwreset.extensions import db
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from tests.support.clock import NOON


@pytest.fixture(autouse=True)
def in_context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def add(*arguments) -> None:
    counters.add(*arguments)
    db.session.commit()


def test_nothing_is_counted_at_first() -> None:
    assert counters.totals() == {}


def test_each_kind_is_counted_for_itself() -> None:
    for kind in ["register", "password_reset", "password_reset"]:
        add(Counted.DELIVERED, kind)
    add(Counted.EXPIRED, "register", 5)
    assert counters.totals() == {
        ("delivered", "password_reset"): 2,
        ("delivered", "register"): 1,
        ("expired", "register"): 5,
    }


def test_what_is_rolled_back_was_never_counted() -> None:
    add(Counted.DELIVERED, "register")
    counters.add(Counted.DELIVERED, "register")
    db.session.rollback()
    assert counters.totals() == {("delivered", "register"): 1}


def test_a_counter_passes_what_fits_into_32_bits() -> None:
    add(Counted.LIMITED, "users.login", 2**31)
    add(Counted.LIMITED, "users.login")
    assert counters.totals() == {("limited", "users.login"): 2**31 + 1}


def test_the_moment_of_the_last_one_is_known() -> None:
    assert counters.last(Counted.WORKER_HEARTBEAT) is None
    with time_machine.travel(NOON, tick=False) as clock:
        add(Counted.WORKER_HEARTBEAT, "worker")
        clock.shift(30)
        add(Counted.DELIVERED, "register")
    assert counters.last(Counted.WORKER_HEARTBEAT) == NOON


def test_many_at_once_lose_no_count(app: Flask) -> None:
    def count(_: int) -> None:
        with app.app_context():
            add(Counted.COMPLETED, "reset")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(40)))
    assert counters.totals() == {("completed", "reset"): 40}
