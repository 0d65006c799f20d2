"""Limits counted in Redis by the processes of a real gunicorn."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.clock import avoid_the_end_of_a_minute, until
from tests.support.databases import on_sqlite
from tests.support.instance import Instance, Serve
from tests.support.redis import SECRET, RedisServer
from tests.support.servers import Browser, Gunicorn, Server
from tests.support.smtp import SMTPServer

pytestmark = on_sqlite  # a refused form never reaches the database
LIMIT = 20
GONE = "Rate limit storage unreachable"


@pytest.fixture
def mail_port() -> Iterator[int]:
    with SMTPServer() as mail_server:
        yield mail_server.port


def workers(server: Server) -> list[int]:
    """Return the two processes that serve."""
    until(lambda: len(server.processes()) == 3, "two workers")
    return sorted(set(server.processes()) - {server.pid})


@contextmanager
def served_by(worker: int, server: Server) -> Iterator[None]:
    """Let nobody but one of the processes answer."""
    others = set(workers(server)) - {worker}
    for other in others:
        os.kill(other, signal.SIGSTOP)
    yield
    for other in others:
        os.kill(other, signal.SIGCONT)


def use_redis_again(server: Server, redis: RedisServer) -> None:
    """Post to each process until it counts in Redis: from time to time a request finds out whether it is back."""
    for worker in workers(server):
        redis.execute("FLUSHALL")
        with served_by(worker, server):
            browser = Browser(server)
            until(lambda b=browser: posts(b, "/register/", 1) and redis.counts(), "Redis to be used again")
    redis.execute("FLUSHALL")


def posts(browser: Browser, path: str, times: int) -> list[int]:
    page = browser.get(path)
    return [browser.fill_in(page, email="not an address", password="x").status for _ in range(times)]


def from_each(server: Server, path: str, first: int, second: int) -> list[int]:
    """Post so often to the one process, then so often to the other."""
    statuses = []
    for worker, times in zip(workers(server), (first, second), strict=True):
        with served_by(worker, server):
            statuses += posts(Browser(server), path, times)
    return statuses


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["default", "preload"])
def test_the_limit_holds_for_all_processes_together_before_and_after_an_outage(
    instance: Instance, serve: Serve, mail_port: int, options: tuple[str, ...]
):
    with RedisServer() as redis:
        server = serve(Gunicorn, *options, EMAIL_PORT=mail_port, REDIS_URL=redis.url)
        assert from_each(server, "/password-reset/", 12, 9) == [200] * LIMIT + [429]
        redis.stop()
        avoid_the_end_of_a_minute()
        assert from_each(server, "/register/", LIMIT + 1, LIMIT + 1) == ([200] * LIMIT + [429]) * 2
        assert server.log().count(GONE) == 2
        redis.start()
        use_redis_again(server, redis)
        assert from_each(server, "/login/", 20, 11) == [200] * 30 + [429]
    assert server.log().count(GONE) == 2
    assert SECRET not in server.log()


def test_without_redis_each_process_counts_for_itself(instance: Instance, serve: Serve, mail_port: int):
    server = serve(Gunicorn, EMAIL_PORT=mail_port)
    avoid_the_end_of_a_minute()
    assert from_each(server, "/password-reset/", LIMIT + 1, LIMIT + 1) == ([200] * LIMIT + [429]) * 2


def test_gunicorn_starts_without_its_redis_and_uses_it_once_it_is_there(
    instance: Instance, serve: Serve, mail_port: int
):
    redis = RedisServer()
    server = serve(Gunicorn, EMAIL_PORT=mail_port, REDIS_URL=redis.url)
    assert from_each(server, "/register/", 2, 2) == [200] * 4
    assert server.log().count(GONE) == 2
    with redis:
        use_redis_again(server, redis)
        assert from_each(server, "/password-reset/", 12, 9) == [200] * LIMIT + [429]
    assert SECRET not in server.log()


def test_gunicorn_ends_in_order_while_redis_hangs(instance: Instance, serve: Serve, mail_port: int):
    with RedisServer() as redis:
        server = serve(Gunicorn, EMAIL_PORT=mail_port, REDIS_URL=redis.url)
        redis.freeze()
        assert posts(Browser(server), "/register/", 1) == [200]
        server.terminate()
        assert server.wait() == 0
