"""The limits per client: counted in memory or in Redis, and still in force while Redis does not answer."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import time_machine
from flask import Flask
from limits import parse
from limits.storage import RedisStorage
from redis.connection import AbstractConnection

from pwreset import rate_limits
from pwreset.extensions import limiter
from pwreset.rate_limits import TIMEOUT
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.clock import until
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token
from tests.support.redis import HOST, SECRET, FalseRedis, RedisServer, counts_in, saying
from tests.support.servers import free_port

# A refused form never reaches the database.
pytestmark = [on_sqlite, pytest.mark.usefixtures("early_in_a_minute")]
FORM, OTHER_FORM, LIMIT = "/password-reset/", "/register/", 20
MORNING = datetime(2031, 3, 1, 8, 0, 1, tzinfo=UTC)
TIMEOUTS: set[tuple["Poster", int]] = set()
CURRENT = threading.local()  # `request`: the poster, and the number of its request, that this thread is busy with
GONE = "Rate limit storage unreachable"
# A Redis that is away, and what brings it back.
Fault = Callable[[], AbstractContextManager[tuple[str, Callable[[], object]]]]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def patient_redis(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """Return Redis for tests of what is counted in it: on a busy machine half a second is soon over."""
    monkeypatch.setattr(rate_limits, "TIMEOUT", 30.0)
    return redis


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Return the log at its lowest level; in no test does it contain the password."""
    caplog.set_level(0)
    yield caplog
    logged = [caplog.handler.format(record) for record in caplog.get_records("call")]
    assert [line for line in logged if SECRET in line] == []


@pytest.fixture(autouse=True)
def first_look_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget how often other tests looked for Redis: the pauses between two looks grow, and the extension is one."""
    monkeypatch.setattr(limiter, "_Limiter__check_backend_count", 0)
    monkeypatch.setattr(limiter, "_storage_dead", False)


@pytest.fixture(autouse=True)
def timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note which requests waited for Redis in vain; a busy machine is slow too, so no clock can tell."""

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                if type(error).__name__ == "TimeoutError":  # Python's own, or that of Redis's client
                    TIMEOUTS.add(CURRENT.request)
                raise

        return call

    TIMEOUTS.clear()
    for name in ("connect", "read_response"):
        monkeypatch.setattr(AbstractConnection, name, noting(getattr(AbstractConnection, name)))


class Poster:
    """A client who sends one form again and again."""

    def __init__(self, app: Flask, path: str = FORM) -> None:
        self.client, self.path, self.requests = app.test_client(), path, 0
        self.token = csrf_token(self.client.get(path))

    def send(self) -> Any:
        self.requests += 1
        CURRENT.request = (self, self.requests)
        return self.client.post(self.path, data={"csrf_token": self.token, "email": "not an address"})

    def post(self) -> int:
        return int(self.send().status_code)

    def posts(self, times: int) -> list[int]:
        return [self.post() for _ in range(times)]

    def waits(self) -> int:
        """Return how many of its requests waited for Redis in vain, each for no more than two times TIMEOUT."""
        assert 2 * TIMEOUT <= 0.5
        return len([poster for poster, _ in TIMEOUTS if poster is self])


def outages(log: pytest.LogCaptureFixture) -> int:
    """Return how often the log reports that Redis does not answer."""
    return len([line for line in log.messages if line.startswith(GONE)])


def use_redis_again(app: Flask, url: str) -> None:
    """Send forms until they are counted in Redis: from time to time one of them finds out whether it is back."""
    poster = Poster(app, "/login/")
    until(lambda: poster.post() and "users.login" in str(counts_in(url)), "Redis to be used again")


def in_threads(posters: list[Poster], times: int) -> list[int]:
    """Let all post at once, and return all statuses."""
    start = threading.Barrier(len(posters))

    def run(poster: Poster) -> list[int]:
        start.wait()
        return poster.posts(times)

    with ThreadPoolExecutor(len(posters)) as pool:
        return [status for statuses in pool.map(run, posters) for status in statuses]


# --- in memory


def test_threads_of_one_process_get_no_more_than_the_limit_together(app: Flask) -> None:
    assert in_threads([Poster(app) for _ in range(8)], 5).count(200) == LIMIT


def test_clients_that_stay_away_are_forgotten(app: Flask) -> None:
    for number in range(500):
        assert limiter.limiter.hit(parse("1/second"), f"client {number}")
    time.sleep(2.1)
    assert limiter.limiter.hit(parse("1/minute"), "another")
    limiter.storage.timer.join()
    assert len(limiter.storage.storage) == len(limiter.storage.expirations) == 1
    assert not limiter.storage.locks.keys() - limiter.storage.storage.keys()
    assert not limiter.limiter.hit(parse("1/minute"), "another")


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(days=1)])
def test_what_a_clock_that_was_ahead_has_counted_keeps_nobody_out(app: Flask, step: timedelta) -> None:
    with time_machine.travel(MORNING, tick=False) as clock:
        poster = Poster(app)
        clock.shift(step)
        assert poster.posts(LIMIT + 1)[-1] == 429
        clock.shift(-step)
        assert poster.posts(LIMIT + 1) == [200] * LIMIT + [429]


def test_in_a_minute_no_client_gets_more_than_the_limit_and_what_rounding_adds(app: Flask) -> None:
    random, passed = Random(5), []  # noqa: S311 (the steps of a test)
    with time_machine.travel(MORNING, tick=False) as clock:
        poster = Poster(app)
        for _ in range(400):
            clock.shift(random.choice([0, 0, 0.1, 1, 3, 10]))
            if poster.post() == 200:
                passed.append(time.time())
    most = max(len([moment for moment in passed if start <= moment < start + 60]) for start in passed)
    assert LIMIT <= most <= 1.5 * LIMIT
    assert len(passed) <= (passed[-1] - passed[0]) / 60 * LIMIT + LIMIT + 1


# --- how long to wait


def test_after_the_wait_that_a_client_is_told_its_next_request_passes(app: Flask) -> None:
    random = Random(7)  # noqa: S311 (the steps of a test)
    with time_machine.travel(MORNING, tick=False) as clock:
        poster = Poster(app)
        for _ in range(60):
            while (answer := poster.send()).status_code == 200:
                clock.shift(random.choice([0, 0, 0.25, 1, 2.9]))
            wait = int(answer.headers["Retry-After"])
            assert 1 <= wait <= 60
            clock.shift(wait)
            assert poster.post() == 200
            clock.shift(random.choice([0, 0.5, 20, 45, 130]))


def test_with_redis_too_the_next_request_passes_after_the_wait(make_app: MakeApp, patient_redis: RedisServer) -> None:
    def let_pass(seconds: int) -> None:
        for key in patient_redis.counts():
            left = patient_redis.execute("PTTL", key) - 1000 * seconds
            patient_redis.execute(*(("PEXPIRE", key, str(left)) if left > 0 else ("DEL", key)))

    poster, random = Poster(make_app(REDIS_URL=patient_redis.url)), Random(9)  # noqa: S311 (steps of a test)
    for _ in range(10):
        while (answer := poster.send()).status_code == 200:
            let_pass(random.choice([0, 0, 0, 1]))
        wait = int(answer.headers["Retry-After"])
        assert 1 <= wait <= 60
        let_pass(wait)
        assert poster.post() == 200
        let_pass(random.choice([0, 20, 45]))


def test_a_client_is_refused_with_the_longest_wait_where_redis_goes_away_after_it_has_counted(
    make_app: MakeApp, patient_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        patient_redis.stop()
        raise ConnectionError

    poster = Poster(make_app(REDIS_URL=patient_redis.url))
    poster.posts(LIMIT)
    monkeypatch.setattr(RedisStorage, "get_sliding_window", stop)
    answer = poster.send()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")


# --- shared through Redis


def test_with_redis_applications_count_together(make_app: MakeApp, patient_redis: RedisServer, log: Any) -> None:
    one = Poster(make_app(REDIS_URL=patient_redis.url))
    assert one.posts(12) == [200] * 12
    other = Poster(make_app(REDIS_URL=patient_redis.url))
    assert other.posts(9) == [200] * 8 + [429]
    assert one.post() == 429
    assert outages(log) == 0


def test_with_redis_threads_of_two_applications_get_no_more_than_the_limit(
    make_app: MakeApp, patient_redis: RedisServer
) -> None:
    apps = [make_app(REDIS_URL=patient_redis.url) for _ in range(2)]
    assert in_threads([Poster(app) for app in apps * 4], 5).count(200) == LIMIT


@pytest.mark.parametrize("step", [timedelta(seconds=5), timedelta(hours=1), timedelta(days=1)])
def test_with_redis_the_clocks_of_web_machines_do_not_matter(
    make_app: MakeApp, patient_redis: RedisServer, step: timedelta
) -> None:
    app = make_app(REDIS_URL=patient_redis.url)
    with time_machine.travel(MORNING, tick=False) as clock:
        poster = Poster(app)
        clock.shift(step)
        assert poster.posts(12) == [200] * 12
        clock.shift(-step)
        assert poster.posts(9) == [200] * 8 + [429]


def test_only_the_clients_address_is_kept_in_redis_and_for_two_minutes(
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
    counts = patient_redis.counts()
    keys = [re.fullmatch(r"pwreset:\{LIMITER/127\.0\.0\.1/([a-z_]+\.[a-z]+)/\d+/1/minute\}", key) for key in counts]
    assert {key[1] for key in keys if key} == {
        "users.login",
        "users.register",
        "password_reset.reset",
        "password_reset.confirm",
    }
    assert all(keys)
    assert all(count > 0 for count in counts.values())
    assert all(0 < patient_redis.execute("TTL", key) <= 120 for key in counts)


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
        yield server.url, lambda: server.execute("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only():
    with RedisServer("--replicaof", HOST, str(free_port())) as server:
        yield server.url, lambda: server.execute("REPLICAOF", "NO", "ONE")


@contextmanager
def wrong_password():
    with RedisServer() as server:
        mistyped = SECRET + "-mistyped"
        yield server.url.replace(SECRET, mistyped), lambda: server.execute("CONFIG", "SET", "requirepass", mistyped)


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


@contextmanager
def crowded():
    """Return the URL of a port where so many wait to be let in that the next one's packets are dropped."""
    with ExitStack() as connections, socket.create_server((HOST, 0), backlog=0) as listener:
        for _ in range(8):
            connection = connections.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield f"redis://{HOST}:{listener.getsockname()[1]}/0", None


FAULTS: dict[str, Fault] = {
    "refused": refused,
    "frozen": frozen,
    "full": full,
    "read-only": read_only,
    "wrong password": wrong_password,
    "silent": impostor(silence),
    "closing": impostor(lambda connection: connection.recv(1)),
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
    with fault() as (url, end):
        app = make_app(REDIS_URL=url)
        poster = Poster(app)
        assert poster.posts(LIMIT + 1) == [200] * LIMIT + [429]
        assert poster.waits() <= 3, "the first request, and those that look for Redis: at once, and 2 seconds later"
        assert outages(log) >= 1
        end()
        use_redis_again(app, url)
        assert Poster(app, OTHER_FORM).posts(LIMIT + 1) == [200] * LIMIT + [429]
        assert OTHER_FORM.strip("/") in str(counts_in(url))


@pytest.mark.parametrize(
    "away", [crowded, impostor(silence), impostor(silence, "rediss")], ids=["crowded", "silent", "silent before TLS"]
)
def test_a_port_that_does_not_answer_delays_few_requests_and_none_for_long(make_app: MakeApp, away: Fault) -> None:
    with away() as (url, _):
        poster = Poster(make_app(REDIS_URL=url))
        assert poster.posts(5) == [200] * 5
        assert 1 <= poster.waits() <= 3


@pytest.mark.parametrize("name", ["frozen", "full", "read-only", "wrong password", "silent"])
def test_few_requests_wait_in_a_longer_outage_and_the_log_is_not_flooded(
    make_app: MakeApp, log: Any, name: str
) -> None:
    with FAULTS[name]() as (url, _):
        poster = Poster(make_app(REDIS_URL=url))
        started = time.monotonic()
        while time.monotonic() < started + 4:
            poster.post()
        assert poster.waits() <= 4
        assert outages(log) <= 2 + time.monotonic() - started, "a line a second, where Redis answers and can't count"


def test_a_redis_that_stops_holds_nobody_up_and_each_process_counts_from_zero(
    make_app: MakeApp, redis: RedisServer, log: Any
) -> None:
    app = make_app(REDIS_URL=redis.url)
    poster = Poster(app)
    assert poster.posts(15) == [200] * 15
    redis.stop()
    assert poster.posts(LIMIT + 1) == [200] * LIMIT + [429]
    redis.start()
    use_redis_again(app, redis.url)
    assert poster.post() == 200
    assert poster.waits() == 0
    assert outages(log) == 1


def test_redis_started_again_between_two_requests_is_not_missed(
    make_app: MakeApp, redis: RedisServer, log: Any
) -> None:
    poster = Poster(make_app(REDIS_URL=redis.url))
    assert poster.post() == 200
    redis.stop()
    redis.start()
    assert poster.post() == 200
    assert list(redis.counts().values()) == [1]
    assert outages(log) == 0


def test_a_hang_holds_up_those_in_flight_once_and_few_after_them(
    make_app: MakeApp, redis: RedisServer, log: Any
) -> None:
    app = make_app(REDIS_URL=redis.url)
    posters = [Poster(app) for _ in range(8)]
    in_threads(posters, 1)
    redis.freeze()
    assert in_threads(posters, 1) == [200] * 8
    assert sum(poster.waits() for poster in posters) <= 8 + 1
    late = Poster(app, OTHER_FORM)
    assert late.posts(5) == [200] * 5
    assert late.waits() <= 2
    redis.thaw()
    use_redis_again(app, redis.url)


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_no_request_of_many_at_once_fails_whatever_redis_does(
    make_app: MakeApp, redis: RedisServer, log: Any, shared: bool
) -> None:
    app = make_app(REDIS_URL=redis.url if shared else None, RATELIMIT_LOGIN=10_000)
    statuses: list[int] = []
    ends = threading.Event()

    def run() -> None:
        poster = Poster(app, "/login/")
        while not ends.is_set():
            statuses.append(poster.post())

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(run) for _ in range(8)]
        for act in (redis.freeze, redis.thaw, redis.stop, redis.start, redis.freeze, redis.thaw):
            time.sleep(0.7)
            act()
        ends.set()
    assert [str(job.exception()) for job in running if job.exception()] == []
    assert set(statuses) == {200}


def test_each_outage_is_logged(make_app: MakeApp, redis: RedisServer, log: Any) -> None:
    app = make_app(REDIS_URL=redis.url)
    poster = Poster(app)
    for number in (1, 2):
        redis.freeze()
        assert poster.posts(3) == [200] * 3
        redis.thaw()
        use_redis_again(app, redis.url)
        redis.execute("FLUSHALL")
        assert outages(log) == number
