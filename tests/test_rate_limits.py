"""The limits per client: each application's own, shared through Redis, and going on without it."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from limits import parse

from pwreset import rate_limits
from pwreset.clock import at_most_every
from pwreset.extensions import limiter
from pwreset.rate_limits import DEADLINE
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.clock import until
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token
from tests.support.redis import HOST, SECRET, FalseRedis, RedisServer, saying
from tests.support.servers import free_port

pytestmark = on_sqlite  # a refused form never reaches the database
FORM, LIMIT = "/password-reset/", 20
IN_VAIN: list["Poster"] = []
AT_WORK = threading.local()  # `poster`: whose request the thread is busy with
GONE, BACK = "Redis does not count", "Redis counts again"
# A Redis that is away, and what brings it back.
Fault = Callable[[], AbstractContextManager[tuple[str, Callable[[], object]]]]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def patient_redis(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """Return Redis for tests of what is counted in it: on a busy machine half a second is soon over."""
    monkeypatch.setattr(rate_limits, "DEADLINE", 30.0)
    return redis


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Return the log at its most talkative; in no test does it hold the password."""
    caplog.set_level(0)
    yield caplog
    said = [caplog.handler.format(record) for record in caplog.get_records("call")]
    assert [line for line in said if SECRET in line] == []


@pytest.fixture(autouse=True)
def waits_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note whose question to Redis was not answered in time; a busy machine is slow too, so no clock can tell."""
    ask = rate_limits.within

    def noting(seconds: float, question: Callable[[], Any]) -> Any:
        try:
            return ask(seconds, question)
        except Exception as error:
            if type(error).__name__ == "TimeoutError":  # Python's own, or that of Redis's client
                IN_VAIN.append(AT_WORK.poster)
            raise

    IN_VAIN.clear()
    monkeypatch.setattr(rate_limits, "within", noting)


class Poster:
    """A client who sends one form again and again."""

    def __init__(self, app: Flask, path: str = FORM) -> None:
        self.client, self.path = app.test_client(), path
        self.token = csrf_token(self.client.get(path))

    def post(self) -> int:
        AT_WORK.poster = self
        return self.client.post(self.path, data={"csrf_token": self.token, "email": "not an address"}).status_code

    def posts(self, times: int) -> list[int]:
        return [self.post() for _ in range(times)]

    def held_up(self) -> int:
        """How many requests waited for Redis in vain, each for no more than DEADLINE."""
        assert DEADLINE <= 0.5
        return IN_VAIN.count(self)


def lines(log: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [line for line in log.messages if line.startswith(text)]


# --- each application its own


def test_two_applications_count_apart(make_app: MakeApp) -> None:
    one, other = make_app(), make_app()
    assert Poster(one).posts(LIMIT + 1)[-1] == 429
    assert Poster(other).posts(LIMIT + 1) == [200] * LIMIT + [429]


def test_an_application_without_limits_leaves_the_others_theirs(make_app: MakeApp) -> None:
    free, one, free_too = make_app(RATELIMIT_ENABLED=False), make_app(), make_app(RATELIMIT_ENABLED=False)
    assert Poster(one).posts(LIMIT + 1)[-1] == 429
    for app in (free, free_too):
        assert set(Poster(app).posts(LIMIT + 5)) == {200}


def test_threads_of_one_process_get_no_more_than_the_limit_together(app: Flask) -> None:
    assert in_threads([Poster(app) for _ in range(8)], 5).count(200) == LIMIT


def test_clients_that_stay_away_are_forgotten(app: Flask) -> None:
    storage = app.extensions["pwreset_limiter"].storage
    for number in range(500):
        storage.acquire_entry(f"client {number}", 1, 1)
    time.sleep(1.1)
    storage.acquire_entry("next", 1, 60)
    storage.timer.join()
    storage._time_to_forget = at_most_every(0)
    assert storage.acquire_entry("another", 1, 60)
    assert set(storage.events) == {"next", "another"}
    assert not storage.acquire_entry("next", 1, 60)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(days=1)])
def test_what_a_clock_that_was_ahead_has_counted_keeps_nobody_out(
    make_app: MakeApp, patient_redis: RedisServer, shared: bool, step: timedelta
) -> None:
    poster = Poster(make_app(**({"REDIS_URL": patient_redis.url} if shared else {})))
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        clock.shift(step)
        assert poster.posts(LIMIT + 1)[-1] == 429
        clock.shift(-step)
        assert poster.posts(LIMIT + 1) == [200] * LIMIT + [429]


@pytest.mark.parametrize("shared", [False, True])
def test_a_minute_is_a_minute_where_the_clocks_of_two_machines_differ_a_little(
    make_app: MakeApp, patient_redis: RedisServer, shared: bool
) -> None:
    poster = Poster(make_app(**({"REDIS_URL": patient_redis.url} if shared else {})))
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        clock.shift(5)
        assert poster.posts(LIMIT) == [200] * LIMIT
        clock.shift(-5)
        assert poster.post() == 429
        clock.shift(66)
        assert poster.post() == 200


def in_threads(posters: list[Poster], times: int) -> list[int]:
    """Let all post at once, and return all statuses."""
    start = threading.Barrier(len(posters))

    def run(poster: Poster) -> list[int]:
        start.wait()
        return poster.posts(times)

    with ThreadPoolExecutor(len(posters)) as pool:
        return [status for statuses in pool.map(run, posters) for status in statuses]


# --- shared through Redis


def test_with_redis_applications_count_together(make_app: MakeApp, patient_redis: RedisServer, log: Any) -> None:
    one, other = (Poster(make_app(REDIS_URL=patient_redis.url)) for _ in range(2))
    assert one.posts(12) == [200] * 12
    assert other.posts(9) == [200] * 8 + [429]
    assert one.post() == 429
    assert not lines(log, "Redis")


def test_with_redis_threads_of_two_applications_get_no_more_than_the_limit(
    make_app: MakeApp, patient_redis: RedisServer
) -> None:
    apps = [make_app(REDIS_URL=patient_redis.url) for _ in range(2)]
    assert in_threads([Poster(app) for app in apps * 4], 5).count(200) == LIMIT


def test_only_the_clients_address_is_kept_in_redis_and_for_a_minute(
    make_app: MakeApp, patient_redis: RedisServer
) -> None:
    app = make_app(REDIS_URL=patient_redis.url)
    add_user(app, "alice@example.com", "seven green lanterns drift")
    visitor = Visitor(app)
    visitor.log_in()
    visitor.log_out()
    visitor.submit("/register/", email="new@example.com")
    Inbox(app).deliver()
    visitor.choose(Inbox(app).reset_link())
    windows = patient_redis.windows()
    pages = {re.fullmatch(r"pwreset:LIMITER/127\.0\.0\.1/([a-z_]+\.[a-z]+)/\d+/1/minute", key)[1] for key in windows}
    assert pages == {"users.login", "users.register", "password_reset.reset", "password_reset.confirm"}
    assert all(float(moment) > 0 for moments in windows.values() for moment in moments)
    assert all(0 < patient_redis.say("TTL", key) <= 60 for key in windows)


def test_without_limits_redis_is_left_alone(make_app: MakeApp) -> None:
    asked = []
    with FalseRedis(asked.append) as server:
        assert set(Poster(make_app(REDIS_URL=server.url, RATELIMIT_ENABLED=False)).posts(LIMIT + 5)) == {200}
    assert asked == []


# --- without it


@contextmanager
def refused():
    with ExitStack() as running:
        server = RedisServer()
        yield server.url, lambda: running.enter_context(server)


@contextmanager
def frozen():
    with RedisServer() as server:
        server.freeze()
        yield server.url, server.thaw


@contextmanager
def full():
    with RedisServer("--maxmemory", "1") as server:
        yield server.url, lambda: server.say("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only():
    with RedisServer("--replicaof", HOST, str(free_port())) as server:
        yield server.url, lambda: server.say("REPLICAOF", "NO", "ONE")


@contextmanager
def wrong_password():
    with RedisServer() as server:
        mistyped = SECRET + "-mistyped"
        yield server.url.replace(SECRET, mistyped), lambda: server.say("CONFIG", "SET", "requirepass", mistyped)


def impostor(answer: Callable[[socket.socket], None], scheme: str = "redis") -> Fault:
    """Return a fault: what listens there is no Redis."""

    @contextmanager
    def fault():
        with ExitStack() as running:
            server = running.enter_context(FalseRedis(answer))

            def replace() -> None:
                running.close()
                running.enter_context(RedisServer(port=server.port))

            yield server.url.replace("redis:", f"{scheme}:"), replace

    return fault


def silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drops(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"+")
        time.sleep(0.1)


FAULTS: dict[str, Fault] = {
    "refused": refused,
    "frozen": frozen,
    "full": full,
    "read-only": read_only,
    "wrong password": wrong_password,
    "silent": impostor(silence),
    "closing": impostor(lambda connection: connection.recv(1)),
    "in drops": impostor(drops),
    "repeats the password": impostor(saying(f"-ERR unknown command, with args: '{SECRET}'\r\n".encode())),
    "web server": impostor(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "noise": impostor(saying(bytes(range(256)))),
    "no number": impostor(saying(b"+OK\r\n*zz\r\n")),
    "endless": impostor(saying(b"$99999999999\r\nx")),
    "nested": impostor(saying(b"*1\r\n" * 50_000)),
    "loading": impostor(saying(b"-LOADING Redis is loading the dataset in memory\r\n")),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_limits_go_on_without_redis_and_it_is_used_again_when_it_is_back(
    make_app: MakeApp, log: Any, fault: Fault
) -> None:
    with fault() as (url, mend):
        poster = Poster(make_app(REDIS_URL=url))
        assert poster.posts(LIMIT + 1) == [200] * LIMIT + [429]
        assert poster.held_up() <= 1
        assert (len(lines(log, GONE)), len(lines(log, BACK))) == (1, 0)
        mend()
        until(lambda: lines(log, BACK), "Redis to be used again")
        one, other = (Poster(make_app(REDIS_URL=url), "/register/") for _ in range(2))
        assert one.posts(12) + other.posts(9) == [200] * LIMIT + [429]
        assert (len(lines(log, GONE)), len(lines(log, BACK))) == (1, 1)


@contextmanager
def crowded() -> Iterator[str]:
    """Return the URL of a port where so many wait to be let in that the next one's packets are dropped."""
    with ExitStack() as lines, socket.create_server((HOST, 0), backlog=0) as listener:
        for _ in range(8):
            line = lines.enter_context(socket.socket())
            line.setblocking(False)
            line.connect_ex(listener.getsockname())
        yield f"redis://{HOST}:{listener.getsockname()[1]}/0"


@contextmanager
def silent() -> Iterator[str]:
    with FalseRedis(silence) as server:
        yield server.url


@pytest.mark.parametrize("away", [crowded, silent])
def test_what_asked_in_vain_ends_soon_and_one_thread_alone_looks_for_redis(
    make_app: MakeApp, log: Any, away: Callable[[], AbstractContextManager[str]]
) -> None:
    before = set(threading.enumerate())

    def begun(name: str) -> list[threading.Thread]:
        return [thread for thread in set(threading.enumerate()) - before if thread.name == name]

    with away() as url:
        assert set(Poster(make_app(REDIS_URL=url)).posts(3)) == {200}
        assert lines(log, f"{GONE} (TimeoutError)")
        until(lambda: not begun("asking"), "the end of the thread that asked", timeout=5)
        assert [thread.daemon for thread in begun("redis")] == [True]  # or the process could not end


def test_redis_dying_under_way_costs_no_count_and_holds_nobody_up(
    make_app: MakeApp, redis: RedisServer, log: Any
) -> None:
    poster = Poster(make_app(REDIS_URL=redis.url))
    assert poster.posts(15) == [200] * 15
    redis.stop()
    assert poster.posts(6) == [200] * 5 + [429]
    redis.start()
    until(lambda: lines(log, BACK), "Redis to be used again")
    assert redis.windows().keys() <= {"pwreset:is-redis-back"}
    assert poster.post() == 429, "the process knows what Redis forgot"
    assert poster.held_up() == 0
    assert len(lines(log, "Redis")) == 2


def test_redis_started_again_between_two_requests_is_not_missed(
    make_app: MakeApp, redis: RedisServer, log: Any
) -> None:
    poster = Poster(make_app(REDIS_URL=redis.url))
    assert poster.post() == 200
    redis.stop()
    redis.start()
    assert poster.post() == 200
    assert [len(moments) for moments in redis.windows().values()] == [1]
    assert not lines(log, "Redis")


def test_a_hang_holds_up_those_in_flight_once_and_nobody_after_them(
    make_app: MakeApp, redis: RedisServer, log: Any
) -> None:
    app = make_app(REDIS_URL=redis.url)
    posters = [Poster(app) for _ in range(8)]
    in_threads(posters, 1)
    redis.freeze()
    in_threads(posters, 1)
    assert sum(poster.held_up() for poster in posters) <= 8
    assert Poster(app, "/register/").posts(5) == [200] * 5
    assert len(lines(log, GONE)) == 1
    redis.thaw()
    until(lambda: lines(log, BACK), "Redis to be used again")
    assert len(lines(log, GONE)) == 1


@pytest.mark.parametrize("name", ["frozen", "full", "read-only", "wrong password", "in drops", "silent"])
def test_looking_for_redis_is_no_matter_of_a_request_and_finds_only_one_that_counts(
    make_app: MakeApp, log: Any, name: str
) -> None:
    with FAULTS[name]() as (url, mend):
        poster = Poster(make_app(REDIS_URL=url))
        end = time.monotonic() + 3.5  # by then Redis was looked for two or three times
        while time.monotonic() < end:
            poster.post()
        assert poster.held_up() <= 1
        assert (len(lines(log, GONE)), len(lines(log, BACK))) == (1, 0)
        mend()
        until(lambda: lines(log, BACK), "Redis to be used again")


def test_each_outage_is_told_and_ended_on_its_own(make_app: MakeApp, redis: RedisServer, log: Any) -> None:
    poster = Poster(make_app(REDIS_URL=redis.url))
    for outage in (1, 2):
        redis.freeze()
        assert poster.posts(3) == [200] * 3
        assert poster.held_up() == outage
        redis.thaw()
        until(lambda number=outage: len(lines(log, BACK)) == number, "Redis to be used again")
        assert len(lines(log, GONE)) == outage


def test_a_name_server_that_hangs_holds_nobody_up(
    make_app: MakeApp, redis: RedisServer, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver knows no timeout; here it is made slow, and asked as ever."""
    answered, resolve = threading.Event(), socket.getaddrinfo

    def slowly(*args: Any, **kwargs: Any) -> Any:
        answered.wait()
        return resolve(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    poster = Poster(make_app(REDIS_URL=redis.url))
    assert poster.posts(LIMIT + 1) == [200] * LIMIT + [429]
    assert poster.held_up() == 1
    assert lines(log, GONE)
    answered.set()
    until(lambda: lines(log, BACK), "Redis to be used again")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_what_only_accepts_holds_up_one_request(make_app: MakeApp, log: Any, scheme: str) -> None:
    with impostor(silence, scheme)() as (url, mend):
        poster = Poster(make_app(REDIS_URL=url))
        poster.posts(5)
        assert poster.held_up() == 1
        mend()


def test_what_is_left_is_told_with_redis_and_without(make_app: MakeApp, patient_redis: RedisServer) -> None:
    one, other = (make_app(REDIS_URL=patient_redis.url) for _ in range(2))

    def left(app: Flask) -> int:
        with app.app_context():
            return limiter.limiter.get_window_stats(parse("5/minute"), "somebody").remaining

    with one.app_context():
        assert limiter.limiter.hit(parse("5/minute"), "somebody")
    assert (left(one), left(other)) == (4, 4)
    patient_redis.stop()
    assert (left(one), left(other)) == (4, 5)
