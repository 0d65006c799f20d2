"""/healthz answers in time, whatever the database does."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask

from pwreset.monitoring import health
from tests.support.clock import until
from tests.support.databases import PostgreSQL, on_postgresql

UNAVAILABLE = (503, {"status": "unavailable"})


def get_health(app: Flask) -> tuple[int, object]:
    answer = app.test_client().get("/healthz")
    return answer.status_code, answer.json


def asking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "call-with-timeout"]


def test_a_site_that_can_serve_says_so_to_many_at_once(app: Flask) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(map(str, pool.map(get_health, [app] * 40))) == {str((200, {"status": "ok"}))}
    until(lambda: not asking(), "the end of all questions")


@on_postgresql
def test_a_database_that_does_not_answer_is_a_503_in_time_and_one_thread_waits_for_it(
    app: Flask, database: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "DEADLINE", 0.2)
    with psycopg.connect(database.url) as connection:
        connection.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        start = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(get_health, [app] * 4)) == [UNAVAILABLE] * 4
        assert time.monotonic() - start < 2
        assert len(asking()) == 1
    until(lambda: not asking(), "the answer to the one question")
    assert get_health(app) == (200, {"status": "ok"})
