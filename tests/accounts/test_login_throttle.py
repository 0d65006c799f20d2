"""Who guesses passwords waits: for each account and network, twice as long each time, whoever has an account."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask

from pwreset import accounts
from pwreset.accounts import login_throttle
from pwreset.accounts.login_throttle import LoginThrottled
from pwreset.extensions import db
from pwreset.models import LoginFailures
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
    """Fail a login so often; return the count after the last."""
    with app.app_context():
        return [login_throttle.count_attempt(address, network) for _ in range(times)][-1]


def wait(app: Flask, address: str = ALICE, network: str = HOME) -> int:
    """Return how long a try would have to wait, in seconds; 0 where it was counted."""
    with app.app_context():
        try:
            login_throttle.count_attempt(address, network)
        except LoginThrottled as error:
            return error.retry_after
    return 0


def log_in(app: Flask, password: str, address: str = ALICE, network: str = HOME) -> Any:
    """Log in from a network, in a new browser."""
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


def test_while_it_waits_the_right_password_is_refused_too(
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


def test_nothing_is_looked_up_or_hashed_while_it_waits(
    app: Flask, alice: int, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(app, 6)
    monkeypatch.delattr(accounts, "check_password")
    assert log_in(app, PASSWORD).status_code == 429


def test_another_network_does_not_wait(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    assert log_in(app, PASSWORD, network=AWAY).status_code == 302


def test_another_account_does_not_wait(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
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


def test_a_login_that_succeeds_takes_its_networks_failures_back(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    fail(app, 4)
    fail(app, 4, network=AWAY)
    log_in(app, PASSWORD)
    assert (fail(app), fail(app, network=AWAY)) == (1, 5)


def test_a_completed_reset_takes_all_back(app: Flask, alice: int, inbox: Inbox) -> None:
    for network in (HOME, AWAY):
        fail(app, 6, network=network)
    Visitor(app).choose(inbox.reset_link())
    assert [log_in(app, NEW_PASSWORD, network=network).status_code for network in (HOME, AWAY)] == [302, 302]


def test_after_a_day_they_are_forgotten(app: Flask, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    clock.shift(timedelta(days=1, seconds=1))
    assert fail(app) == 1


def test_what_is_forgotten_is_deleted(app: Flask, clock: time_machine.Traveller) -> None:
    fail(app, 6)
    clock.shift(timedelta(hours=23))
    fail(app, 1, NOBODY)
    clock.shift(timedelta(hours=2))
    with app.app_context():
        purge()
        assert db.session.query(LoginFailures).count() == 1


def test_a_clock_that_is_set_back_keeps_nobody_out(app: Flask, alice: int, clock: time_machine.Traveller) -> None:
    clock.shift(timedelta(days=1))
    fail(app, 6)
    clock.shift(timedelta(days=-1))
    assert wait(app) == 0


def test_of_many_tries_at_once_no_more_are_looked_at_than_one_by_one(app: Flask, alice: int) -> None:
    looked_at, start = [], threading.Barrier(12)

    def guess() -> None:
        start.wait()
        with app.app_context():
            try:
                looked_at.append(accounts.authenticate(ALICE, "wrong", RequestInfo(HOME)))
                db.session.commit()
            except LoginThrottled:
                pass

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looked_at == [None] * 6


def test_the_table_holds_no_address(app: Flask) -> None:
    fail(app, 1, "my-password@example.com")
    with app.app_context():
        row = db.session.query(LoginFailures).one()
        assert (len(row.account), row.network) == (64, HOME)
        assert "example" not in row.account


def test_whoever_begins_to_wait_is_noted_with_the_account(app: Flask, alice: int) -> None:
    for _ in range(6):
        log_in(app, "wrong")
    assert event_kinds(app, alice) == ["login_failed"] * 6 + ["limited"]


def test_other_limits_are_a_matter_of_settings(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = make_app(LOGIN_FREE_FAILURES="1", LOGIN_FIRST_WAIT="2", LOGIN_LONGEST_WAIT="5")
    fail(app)
    waits = []
    for _ in range(4):
        fail(app)
        waits.append(wait(app))
        clock.shift(waits[-1])
    assert waits == [2, 4, 5, 5]


def test_without_limits_nobody_waits(make_app: MakeApp) -> None:
    app = make_app(RATELIMIT_ENABLED="false")
    with app.app_context():
        assert [login_throttle.count_attempt(ALICE, HOME) for _ in range(20)] == [0] * 20


# --- the old password, at its change


def change(visitor: Visitor, old: str, new: str = NEW_PASSWORD) -> Any:
    return visitor.submit("/password-change/", old_password=old, new_password1=new, new_password2=new)


def test_a_thief_of_a_session_can_not_guess_the_password_at_its_change(
    app: Flask, alice: int, visitor: Visitor
) -> None:
    visitor.log_in()
    assert [change(visitor, "wrong").status_code for _ in range(7)] == [200] * 6 + [429]
    assert change(visitor, PASSWORD).status_code == 429
    assert event_kinds(app, alice).count("login_failed") == 6


def test_the_right_old_password_counts_as_no_failure_whatever_is_wrong_with_the_new(
    app: Flask, alice: int, visitor: Visitor
) -> None:
    visitor.log_in()
    assert {change(visitor, PASSWORD, "short").status_code for _ in range(8)} == {200}
    assert change(visitor, PASSWORD).location == "/password-change/done/"


# --- a page that is a real one


def test_the_page_leads_to_the_reset(app: Flask, alice: int) -> None:
    fail(app, 6, network="127.0.0.1")
    page = Visitor(app).log_in()
    assert 'href="/password-reset/"' in page.text
    assert csrf_token(Visitor(app).get("/password-reset/"))


def test_the_mail_is_not_kept_back_by_failed_logins(app: Flask, alice: int, inbox: Inbox) -> None:
    fail(app, 6)
    Visitor(app).ask_for_reset()
    assert link_in(inbox.deliver_one()) in text_of(inbox.emails()[-1])


# --- where one count, day or wait ends and another begins


def test_a_login_to_an_account_of_ones_own_takes_back_nothing_of_another(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    add_user(app, "mallory@example.com", PASSWORD)
    fail(app, 6)
    assert log_in(app, PASSWORD, "mallory@example.com").status_code == 302
    assert wait(app) == 15


def test_each_account_and_network_is_told_its_own_wait(app: Flask, clock: time_machine.Traveller) -> None:
    pairs = [(ALICE, HOME), (NOBODY, HOME), (ALICE, AWAY)]
    for address, network in pairs:
        fail(app, 6, address, network)
        clock.shift(1)
    assert [wait(app, address, network) for address, network in pairs] == [12, 13, 14]


def test_what_failed_exactly_a_day_ago_still_counts(app: Flask, clock: time_machine.Traveller) -> None:
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
def test_a_clock_may_be_two_minutes_behind_before_the_longest_wait_is_not_believed(
    app: Flask, clock: time_machine.Traveller, back: int, left: int
) -> None:
    fail(app, 6)
    clock.shift(-back)
    assert wait(app) == left


def test_what_failed_before_an_upgrade_still_counts(make_app: MakeApp) -> None:
    """With the same key, another version of this code must know an address again."""
    app = make_app(SECRET_KEY="a key of 32 bytes: 0123456789-xyz")
    fail(app)
    with app.app_context():
        account = db.session.query(LoginFailures).one().account
    assert account == "1d4fe2c15e3f54bf28de5d47231cf10cb043459ce32c1ddbb400325ab88eb29e"
