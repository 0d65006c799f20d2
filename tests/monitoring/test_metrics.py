"""/metrics: who may read it, and that its numbers cover all processes."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from pwreset.extensions import db
from pwreset.monitoring import queue_status
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.clock import NOON, waited_for
from tests.support.outbox import app_for, deliver, request_email
from tests.support.smtp import SMTPServer

TOKEN = "8a1f0c7e55d94b3b"
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}
RESET = "password_reset"


def numbers(app: Flask) -> dict[tuple[str, str], float]:
    """Return every sample as Prometheus reads it, by its name and its label."""
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name.removeprefix("pwreset_"), next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_at_first_there_are_the_gauges_at_zero(app: Flask) -> None:
    assert numbers(app) == {
        ("outbox_due", ""): 0,
        ("outbox_waiting", ""): 0,
        ("outbox_failed", ""): 0,
        ("outbox_oldest_due_seconds", ""): 0,
        ("worker_seen_timestamp_seconds", ""): 0,
    }


def test_the_metrics_show_how_much_waits_and_for_how_long(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        clock.shift(90)
        request_email(app)
        found = numbers(app)
    assert (found["outbox_due", ""], found["outbox_oldest_due_seconds", ""]) == (2, 90)


def test_a_worker_that_took_an_email_is_seen(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False):
        request_email(app)
        deliver(app)
        assert numbers(app)["worker_seen_timestamp_seconds", ""] == NOON.timestamp()


def test_what_happened_to_email_is_counted_by_its_kind(make_app: MakeApp) -> None:
    with SMTPServer(rcpt_reply=iter(["550 no", "450 later", None]).__next__) as server:
        app = app_for(make_app, server)
        for person in ("ann", "bob", "cem"):
            add_user(app, f"{person}@example.com", None)
            request_email(app, f"{person}@example.com", RESET)
        request_email(app, "nobody@example.com", RESET)
        deliver(app)
    found = numbers(app)
    assert found["requests_total", RESET] == 4
    assert found["mails_failed_total", RESET] == 1
    assert found["mails_retried_total", RESET] == 1
    assert found["mails_delivered_total", RESET] == 1
    assert found["mails_unaddressed_total", RESET] == 1
    assert (found["outbox_failed", ""], found["outbox_waiting", ""]) == (1, 1)


def test_completed_resets_are_counted(app: Flask, visitor: Visitor, inbox: Inbox, alice: int) -> None:
    visitor.choose(inbox.reset_link())
    assert numbers(app)["resets_completed_total", "reset"] == 1


@pytest.mark.usefixtures("early_in_a_minute")
def test_refused_requests_are_counted_without_a_write_for_each(app: Flask, visitor: Visitor) -> None:
    statuses = [visitor.request_reset("nobody@example.com").status_code for _ in range(23)]
    assert statuses.count(429) == 3
    assert waited_for(lambda: numbers(app).get(("rate_limited_total", "password_reset.reset")) == 3)


def test_a_database_that_was_away_gets_the_refusals_later(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = app.extensions["pwreset"].rejected_requests
    with app.app_context():
        db.session.execute(db.text("ALTER TABLE counters RENAME TO hidden"))
        db.session.commit()
        refusals.add("users.login", RequestInfo("192.0.2.1"))
        refusals.write()
        db.session.execute(db.text("ALTER TABLE hidden RENAME TO counters"))
        db.session.commit()
    refusals.add("users.login", RequestInfo("192.0.2.1"))
    refusals.write()
    assert numbers(app)["rate_limited_total", "users.login"] == 2


def test_two_applications_on_one_database_answer_alike(make_app: MakeApp) -> None:
    one, other = make_app(), make_app()
    request_email(one)
    deliver(other)
    request_email(other)
    assert numbers(one).items() >= {("outbox_due", ""): 1, ("mails_delivered_total", "password_changed"): 1}.items()
    first, second = numbers(one), numbers(other)
    age = ("outbox_oldest_due_seconds", "")
    assert first | {age: 0} == second | {age: 0}


def test_what_was_asked_for_never_goes_down_while_email_leaves_the_outbox(make_app: MakeApp) -> None:
    app, at_work = make_app(), make_app()
    for _ in range(60):
        request_email(app)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(deliver, at_work)
        shown = [numbers(app)["requests_total", "password_changed"]]
        while not job.done():
            shown.append(numbers(app)["requests_total", "password_changed"])
    assert set(shown) == {60}
    assert job.result() == (60, None)


def test_what_was_asked_for_is_looked_up_in_one_statement(app: Flask) -> None:
    """So that no email can leave between two of them; the test before sees it only now and then."""
    with app.app_context():
        said = []
        event.listen(db.engine, "before_cursor_execute", lambda *arguments: said.append(arguments[2]))
        queue_status.requests()
    assert len(said) == 1


def test_no_address_is_in_it(app: Flask, alice: int) -> None:
    request_email(app, "alice@example.com", RESET)
    deliver(app)
    request_email(app, "alice@example.com", RESET)
    assert not re.search(r"alice|example", app.test_client().get("/metrics").text)


def test_without_a_database_it_is_not_available(app: Flask, database) -> None:
    database.make_unreachable()
    assert app.test_client().get("/metrics").status_code == 503


# --- who may read


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_may_read(app: Flask, address: str) -> None:
    assert app.test_client().get("/metrics", environ_overrides={"REMOTE_ADDR": address}).status_code == 200


def test_without_a_token_nobody_else_may(app: Flask) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer None"},
        {"Authorization": "Basic YTpi"},
    ):
        assert app.test_client().get("/metrics", environ_overrides=ELSEWHERE, headers=headers).status_code == 403


def test_the_token_opens_it_from_elsewhere(make_app: MakeApp) -> None:
    client = make_app(METRICS_TOKEN=TOKEN).test_client()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/metrics", environ_overrides=ELSEWHERE, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "sent", [None, "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \u00fc"]
)
def test_another_token_does_not(make_app: MakeApp, sent: str | None) -> None:
    client = make_app(METRICS_TOKEN=TOKEN).test_client()
    headers = {} if sent is None else {"Authorization": sent}
    answer = client.get("/metrics", environ_overrides=ELSEWHERE, headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "pwreset_" not in answer.text


def test_with_a_token_this_machine_may_still_read_without(make_app: MakeApp) -> None:
    assert make_app(METRICS_TOKEN=TOKEN).test_client().get("/metrics").status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto"])
def test_who_comes_through_a_proxy_on_this_machine_is_not_this_machine(app: Flask, header: str) -> None:
    assert app.test_client().get("/metrics", headers={header: "127.0.0.1"}).status_code == 403


def test_a_public_site_answers_it_on_a_loopback_name(make_app: MakeApp) -> None:
    app = make_app(
        PUBLIC_URL="https://accounts.example.com",
        SECRET_KEY="k3Yl-9aQzX7wPvT2bNcR5dMfG8hJsL4u6E0iOoUy",
        EMAIL_HOST="localhost",
        EMAIL_FROM="accounts@example.com",
    )
    assert app.test_client().get("/metrics", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    # A proxy on this machine that adds no header of its own passes on what its visitors asked for.
    assert app.test_client().get("/metrics", headers={"Host": "accounts.example.com"}).status_code == 403
    assert app.test_client().get("/metrics", headers={"Host": "evil.example"}).status_code == 400
