"""The login throttle: per account and network, each failure doubles the wait, with or without an account."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from pwreset import accounts
from pwreset.accounts import login_throttle
from pwreset.accounts.login_throttle import LoginThrottled
from pwreset.extensions import db
from pwreset.models import LoginFailures, User
from pwreset.outbox.retention import purge
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.outbox import event_kinds
from tests.support.pages import csrf_token, link_in, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD

NOW = datetime(2031, 3, 1, 12, tzinfo=UTC)
ALICE, NOBODY = "alice@example.com", "nobody@example.com"
HOME, AWAY = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as coordinates:
        yield coordinates


def fail(app: Flask, times: int = 1, address: str = ALICE, network: str = HOME) -> int:
    """Count this many failed logins; return the count after the last one."""
    with app.app_context():
        return [login_throttle.count_attempt(address, network) for _ in range(times)][-1]


def wait(app: Flask, address: str = ALICE, network: str = HOME) -> int:
    """Return for how many seconds a try is throttled; 0 if it was counted instead."""
    with app.app_context():
        try:
            login_throttle.count_attempt(address, network)
        except LoginThrottled as error:
            return error.retry_after
    return 0


def log_in(app: Flask, password: str, address: str = ALICE, network: str = HOME) -> Any:
    """Log in from a network in a new browser."""
    visitor = Visitor(app)
    visitor.client.environ_base["REMOTE_ADDR"] = network
    return visitor.log_in(address, password)


def test_the_first_five_failures_are_free(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
    assert fail(app, 5) == 5
    assert log_in(app, PASSWORD).status_code == 302


@pytest.mark.parametrize("address", [ALICE, NOBODY])
def test_each_further_failure_doubles_the_wait_up_to_a_quarter_of_an_hour(
    app: Flask, alice: int, clock: time_machine.Traveller, address: str
) -> None:
    fail(app, 5, address)
    waits = []
    for _ in range(10):
        fail(app, 1, address)
        waits.append(wait(app, address))
        clock.shift(waits[-1])
    assert waits == [15, 30, 60, 120, 240, 480, 900, 900, 900, 900]


def test_a_throttled_network_is_refused_even_with_the_right_password(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    fail(app, 6)
    answer = log_in(app, PASSWORD)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "15")
    assert "Try again in 15 seconds, or reset the password." in answer.text
    clock.shift(15)
    assert log_in(app, PASSWORD).status_code == 302


def test_a_refused_try_does_not_prolong_the_wait(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    clock.shift(14)
    assert [wait(app) for _ in range(3)] == [1, 1, 1]


def test_a_throttled_try_looks_up_no_account_and_computes_no_hash(
    app: Flask, alice: int, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(app, 6)
    monkeypatch.delattr("pwreset.accounts.service.check_password")
    assert log_in(app, PASSWORD).status_code == 429


def test_another_network_is_not_throttled(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    assert log_in(app, PASSWORD, network=AWAY).status_code == 302


def test_another_account_is_not_throttled(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
    fail(app, 6, NOBODY)
    assert log_in(app, PASSWORD).status_code == 302


@pytest.mark.parametrize("spelling", ["ALICE@example.com", "alice@EXAMPLE.com", "ａｌｉｃｅ@example.com"])
def test_all_spellings_of_an_address_count_together(
    app: Flask, alice: int, clock: time_machine.Traveller, spelling: str
) -> None:
    fail(app, 6, spelling)
    assert wait(app) == 15


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_a_network_is_an_ipv4_address_or_64_bits_of_ipv6(
    app: Flask, clock: time_machine.Traveller, first: str, second: str, together: bool
) -> None:
    fail(app, 6, network=first)
    assert (wait(app, network=second) > 0) == together


def test_a_successful_login_clears_the_failures_of_its_network(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    fail(app, 4)
    fail(app, 4, network=AWAY)
    log_in(app, PASSWORD)
    assert (fail(app), fail(app, network=AWAY)) == (1, 5)


def test_a_completed_reset_clears_the_failures_of_all_networks(app: Flask, alice: int, inbox: Inbox) -> None:
    for network in (HOME, AWAY):
        fail(app, 6, network=network)
    Visitor(app).choose(inbox.reset_link())
    assert [log_in(app, NEW_PASSWORD, network=network).status_code for network in (HOME, AWAY)] == [302, 302]


def test_failures_stop_counting_after_a_day(app: Flask, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    clock.shift(timedelta(days=1, seconds=1))
    assert fail(app) == 1


def test_failures_that_no_longer_count_are_deleted(app: Flask, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    clock.shift(timedelta(hours=23))
    fail(app, 1, NOBODY)
    clock.shift(timedelta(hours=2))
    with app.app_context():
        purge()
        assert db.session.query(LoginFailures).count() == 1


def test_nobody_stays_throttled_after_a_clock_is_set_back(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    clock.shift(timedelta(days=1))
    fail(app, 6)
    clock.shift(timedelta(days=-1))
    assert wait(app) == 0


def at_once(app: Flask, times: int, try_once: Callable[[], object]) -> list[object]:
    """Call a function in this many threads at once; return the results of the calls that were not throttled."""
    results, start = [], threading.Barrier(times)

    def run() -> None:
        with app.app_context():
            start.wait()
            with suppress(LoginThrottled):
                results.append(try_once())

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_simultaneous_tries_check_no_more_passwords_than_sequential_ones(app: Flask, alice: int) -> None:
    def guess() -> User | None:
        user = accounts.authenticate(ALICE, "wrong", RequestInfo(HOME))
        db.session.commit()
        return user

    assert at_once(app, 12, guess) == [None] * 6


@pytest.mark.parametrize("failed_before", [0, 3], ids=["first failures", "later failures"])
def test_fifty_simultaneous_tries_are_all_counted(make_app: MakeApp, failed_before: int) -> None:
    app = make_app(LOGIN_FREE_FAILURES="100")
    for _ in range(failed_before):
        fail(app)
    counts = at_once(app, 50, lambda: login_throttle.count_attempt(ALICE, HOME))
    assert sorted(counts) == list(range(failed_before + 1, failed_before + 51))
    with app.app_context():
        assert db.session.query(LoginFailures).one().failures == failed_before + 50


def test_a_login_and_the_end_of_its_password_do_not_deadlock(
    app: Flask, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write to the account first and then to its failures, so that one waits for the other."""
    clear_network = login_throttle.clear_network
    errors: list[Exception] = []

    def end_password() -> None:
        with app.app_context():
            try:
                accounts.revoke(accounts.find(ALICE), password=True)
                db.session.commit()
            except OperationalError as error:
                errors.append(error)

    thread = threading.Thread(target=end_password)

    def clear_network_later(address: str, client_address: str | None) -> None:
        thread.start()
        thread.join(0.5)  # seconds; it can't end before this login commits
        clear_network(address, client_address)

    monkeypatch.setattr(login_throttle, "clear_network", clear_network_later)
    with app.app_context():
        assert accounts.authenticate(ALICE, PASSWORD, RequestInfo(HOME)) is not None
        db.session.commit()
    thread.join()
    assert errors == []


@pytest.mark.parametrize("failed_before", [0, 5, 6], ids=["first failure", "start of a wait", "throttled"])
def test_addresses_with_and_without_an_account_run_the_same_statements(
    app: Flask, alice: int, clock: time_machine.Traveller, failed_before: int
) -> None:
    def statements(address: str) -> list[str]:
        if failed_before:
            fail(app, failed_before, address)
        seen: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
            seen.append(statement)

        with app.app_context():
            event.listen(db.engine, "before_cursor_execute", note)
            wait(app, address)
            event.remove(db.engine, "before_cursor_execute", note)
        return seen

    assert statements(ALICE) == statements(NOBODY) != []


def test_the_table_holds_no_address(app: Flask) -> None:
    fail(app, 1, "my-password@example.com")
    with app.app_context():
        row = db.session.query(LoginFailures).one()
        assert (len(row.account), row.network) == (64, HOME)
        assert "example" not in row.account


def test_the_start_of_a_wait_is_recorded_as_a_security_event(app: Flask, alice: int) -> None:
    for _ in range(6):
        log_in(app, "wrong")
    assert event_kinds(app, alice) == ["login_failed"] * 6 + ["limited"]


def test_the_limits_can_be_changed_by_settings(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = make_app(LOGIN_FREE_FAILURES="1", LOGIN_FIRST_WAIT="2", LOGIN_LONGEST_WAIT="5")
    fail(app)
    waits = []
    for _ in range(4):
        fail(app)
        waits.append(wait(app))
        clock.shift(waits[-1])
    assert waits == [2, 4, 5, 5]


def test_nothing_is_counted_when_rate_limits_are_disabled(make_app: MakeApp) -> None:
    app = make_app(RATELIMIT_ENABLED="false")
    with app.app_context():
        assert [login_throttle.count_attempt(ALICE, HOME) for _ in range(20)] == [0] * 20


# --- the old password on the change page


def change(visitor: Visitor, old: str, new: str = NEW_PASSWORD) -> Any:
    return visitor.submit("/password-change/", old_password=old, new_password1=new, new_password2=new)


def test_the_old_password_can_not_be_guessed_on_the_change_page(app: Flask, alice: int, visitor: Visitor) -> None:
    visitor.log_in()
    assert [change(visitor, "wrong").status_code for _ in range(7)] == [200] * 6 + [429]
    assert change(visitor, PASSWORD).status_code == 429
    assert event_kinds(app, alice).count("login_failed") == 6


def test_a_right_old_password_counts_as_no_failure_even_if_the_new_one_is_rejected(
    app: Flask, alice: int, visitor: Visitor
) -> None:
    visitor.log_in()
    assert {change(visitor, PASSWORD, "short").status_code for _ in range(8)} == {200}
    assert change(visitor, PASSWORD).location == "/password-change/done/"


# --- what remains possible for a throttled owner


def test_the_throttled_page_links_to_the_reset(app: Flask, alice: int) -> None:
    fail(app, 6, network="127.0.0.1")
    page = Visitor(app).log_in()
    assert 'href="/password-reset/"' in page.text
    assert csrf_token(Visitor(app).get("/password-reset/"))


def test_failed_logins_do_not_delay_the_reset_email(app: Flask, alice: int, inbox: Inbox) -> None:
    fail(app, 6)
    Visitor(app).request_reset()
    assert link_in(inbox.deliver_one()) in text_of(inbox.emails()[-1])


# --- boundaries


def test_a_login_to_ones_own_account_clears_no_failures_of_another(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    add_user(app, "mallory@example.com", PASSWORD)
    fail(app, 6)
    assert log_in(app, PASSWORD, "mallory@example.com").status_code == 302
    assert wait(app) == 15


def test_each_account_and_network_has_its_own_wait(app: Flask, clock: time_machine.Traveller) -> None:
    pairs = [(ALICE, HOME), (NOBODY, HOME), (ALICE, AWAY)]
    for address, network in pairs:
        fail(app, 6, address, network)
        clock.shift(1)
    assert [wait(app, address, network) for address, network in pairs] == [12, 13, 14]


def test_a_failure_exactly_a_day_old_still_counts(app: Flask, clock: time_machine.Traveller) -> None:
    fail(app, 4)
    clock.shift(timedelta(days=1))
    with app.app_context():
        purge()
    assert fail(app) == 5


def test_after_a_day_the_first_failure_is_free_again(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = make_app(LOGIN_FREE_FAILURES="1")
    fail(app, 2)
    clock.shift(timedelta(days=1, seconds=1))
    fail(app)
    assert wait(app) == 0


@pytest.mark.parametrize(("back", "left"), [(1005, 1020), (1006, 0)])
def test_a_clock_two_minutes_behind_still_honours_the_longest_wait(
    app: Flask, clock: time_machine.Traveller, back: int, left: int
) -> None:
    fail(app, 6)
    clock.shift(-back)
    assert wait(app) == left


def test_failures_recorded_before_an_upgrade_still_count(make_app: MakeApp) -> None:
    """With the same SECRET_KEY, every version of this code must compute the same hash of an address."""
    app = make_app(SECRET_KEY="a key of 32 bytes: 0123456789-xyz")
    fail(app)
    with app.app_context():
        account = db.session.query(LoginFailures).one().account
    assert account == "1d4fe2c15e3f54bf28de5d47231cf10cb043459ce32c1ddbb400325ab88eb29e"
