"""The security events of an account: what is recorded, what it contains, and what is left out."""

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import inspect, select

from pwreset import accounts
from pwreset.accounts import events
from pwreset.accounts.events import DESCRIPTIONS, Kind
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.outbox.retention import purge
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.passwords import NEW_PASSWORD, PASSWORD

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def kinds(app: Flask) -> list[str]:
    """Return what happened, oldest first."""
    with app.app_context():
        return list(db.session.scalars(select(SecurityEvent.kind).order_by(SecurityEvent.id)))


def test_every_kind_reads_as_words() -> None:
    assert set(events.DESCRIPTIONS) == set(Kind)


def test_no_two_kinds_read_alike() -> None:
    assert len(set(events.DESCRIPTIONS.values())) == len(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_the_name_of_a_kind_fits_its_column(kind: Kind) -> None:
    assert len(kind) <= SecurityEvent.__table__.c.kind.type.length


def test_an_event_stands_or_falls_with_its_transaction(app: Flask, alice: int) -> None:
    with app.app_context():
        events.record(Kind.CHANGED, alice)
        db.session.rollback()
    assert kinds(app) == []


def test_an_event_keeps_who_did_it(app: Flask, alice: int) -> None:
    with app.app_context():
        events.record(Kind.CHANGED, alice, RequestInfo("203.0.113.9", FIREFOX))
        db.session.commit()
        (entry,) = events.latest(db.session.get(User, alice))
    assert entry[1:] == ("Password changed", "203.0.113.9", "Firefox on Linux")


def test_an_event_of_the_program_itself_has_no_client(app: Flask, alice: int) -> None:
    with app.app_context():
        events.record(Kind.EMAIL_SENT, alice)
        db.session.commit()
        (entry,) = events.latest(db.session.get(User, alice))
    assert entry[1:] == ("Mail sent", None, None)


def test_an_event_may_belong_to_nobody(app: Flask) -> None:
    with app.app_context():
        events.record(Kind.LOGIN_FAILED, None)
        db.session.commit()
    assert kinds(app) == ["login_failed"]


def test_the_latest_come_first_and_no_more_than_asked_for(app: Flask, alice: int) -> None:
    with app.app_context():
        for kind in Kind:
            events.record(kind, alice)
            db.session.flush()
        db.session.commit()
        found = [entry.description for entry in events.latest(db.session.get(User, alice), limit=3)]
    of_strangers = [kind for kind in Kind if kind in events.BY_STRANGERS][-3:]
    of_others = [kind for kind in Kind if kind not in events.BY_STRANGERS][-3:]
    expected = [DESCRIPTIONS[kind] for kind in reversed(Kind) if kind in {*of_strangers, *of_others}]
    assert found == expected


def test_what_strangers_cause_pushes_no_login_out(app: Flask, alice: int) -> None:
    with app.app_context():
        events.record(Kind.LOGGED_IN, alice)
        for _ in range(30):
            events.record(Kind.LOGIN_FAILED, alice)
            events.record(Kind.MERGED, alice)
        db.session.commit()
        found = [entry.description for entry in events.latest(db.session.get(User, alice))]
    assert len(found) == 21
    assert found[-1] == DESCRIPTIONS[Kind.LOGGED_IN]


def test_the_events_of_another_are_not_among_them(app: Flask, alice: int) -> None:
    bob = add_user(app, "bob@example.com", PASSWORD)
    with app.app_context():
        events.record(Kind.CHANGED, bob)
        db.session.commit()
        assert events.latest(db.session.get(User, alice)) == []


def test_the_events_of_an_account_go_with_it(app: Flask, alice: int) -> None:
    with app.app_context():
        events.record(Kind.CHANGED, alice)
        db.session.commit()
        db.session.delete(db.session.get(User, alice))
        db.session.commit()
    assert kinds(app) == []


@pytest.mark.parametrize(("days", "left"), [(89, ["changed"]), (91, [])])
def test_events_are_kept_for_90_days(app: Flask, alice: int, days: int, left: list[str]) -> None:
    with app.app_context():
        db.session.add(SecurityEvent(user_id=alice, kind="changed", created_at=utcnow() - timedelta(days=days)))
        db.session.commit()
        purge()
    assert kinds(app) == left


def test_a_reset_leaves_its_trace(app: Flask, alice: int, visitor: Visitor, inbox: Inbox) -> None:
    link = inbox.reset_link()
    visitor.choose(link)
    visitor.log_in(password=NEW_PASSWORD)
    assert kinds(app) == ["requested", "mailed", "link_opened", "completed", "logged_in"]


def test_a_request_for_an_unknown_address_leaves_none(app: Flask, visitor: Visitor, inbox: Inbox) -> None:
    visitor.request_reset("nobody@example.com")
    inbox.deliver()
    assert kinds(app) == []


def test_a_registration_leaves_its_trace(app: Flask, visitor: Visitor, inbox: Inbox) -> None:
    visitor.submit("/register/", email="new@example.com")
    inbox.deliver()
    assert kinds(app) == ["registered", "mailed"]


@pytest.mark.parametrize(("email", "known"), [("alice@example.com", True), ("nobody@example.com", False)])
def test_a_failed_login_leaves_one_event_for_known_and_unknown(
    app: Flask, alice: int, visitor: Visitor, email: str, known: bool
) -> None:
    visitor.log_in(email, "wrong")
    with app.app_context():
        (row,) = db.session.scalars(select(SecurityEvent))
        assert (row.kind, row.user_id) == ("login_failed", alice if known else None)


@pytest.mark.parametrize(("active", "kind"), [(True, "activated"), (False, "deactivated")])
def test_switching_an_account_is_remembered(app: Flask, alice: int, active: bool, kind: str) -> None:
    with app.app_context():
        accounts.set_active(db.session.get(User, alice), active=active)
        db.session.commit()
    assert kinds(app) == [kind]


def test_no_address_and_no_password_is_kept(app: Flask, visitor: Visitor) -> None:
    visitor.log_in("typed.by.mistake@example.com", "a password in the wrong place")
    with app.app_context():
        rows = [
            [getattr(row, c.key) for c in inspect(SecurityEvent).columns]
            for row in db.session.scalars(select(SecurityEvent))
        ]
    assert len(rows) == 1
    assert "typed.by.mistake" not in str(rows)
    assert "wrong place" not in str(rows)


@pytest.mark.parametrize("agent", ["x" * 5000, "a\r\nb", "\x1b[31mred", "é" * 300, ""])
def test_what_a_browser_calls_itself_is_bounded_and_printable(app: Flask, visitor: Visitor, agent: str) -> None:
    visitor.client.environ_base["HTTP_USER_AGENT"] = agent
    visitor.log_in("nobody@example.com", "x")
    with app.app_context():
        (kept,) = db.session.scalars(select(SecurityEvent.user_agent))
    assert kept is None or (len(kept) <= 200 and kept.isascii() and kept.isprintable())
    assert (kept is None) == (agent == "")


def limited(app: Flask) -> list[tuple[int | None, str | None]]:
    """Return whose and from where the events of limits are."""
    app.extensions["pwreset"].rejected_requests.write()
    with app.app_context():
        rows = db.session.execute(select(SecurityEvent).where(SecurityEvent.kind == Kind.LIMITED)).scalars()
        return [(row.user_id, row.client_address) for row in rows]


@pytest.mark.usefixtures("early_in_a_minute")
def test_a_client_that_a_limit_refuses_is_an_event_once_a_minute(make_app: MakeApp) -> None:
    app = make_app(RATELIMIT_RESET="1")
    for _ in range(3):
        visitor = Visitor(app)
        visitor.client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
        visitor.request_reset()
        assert limited(app) in ([], [(None, "192.0.2.1")])
    assert limited(app) == [(None, "192.0.2.1")]


@pytest.mark.usefixtures("early_in_a_minute")
def test_two_clients_that_a_limit_refuses_are_two_events(make_app: MakeApp) -> None:
    app = make_app(RATELIMIT_RESET="1")
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"):
        visitor = Visitor(app)
        visitor.client.environ_base["REMOTE_ADDR"] = address
        visitor.request_reset()
    assert sorted(limited(app)) == [(None, "192.0.2.1"), (None, "192.0.2.2")]


def test_a_known_client_stays_known_when_another_one_logs_in(app: Flask) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        app.extensions["pwreset"].rejected_requests.add("users.login", RequestInfo(address))
        told = limited(app)
    assert sorted(told) == [(None, "192.0.2.1"), (None, "192.0.2.2")]


@pytest.mark.parametrize("kind", [Kind.CANCELLED, Kind.SECURED])
def test_what_an_owner_takes_back_reads_as_the_button(kind: Kind) -> None:
    assert DESCRIPTIONS[kind].endswith('by "This wasn\'t me"')
