"""Redis that stops, hangs and comes back under the limits: people hardly notice, and mail not at all."""

import itertools
from collections.abc import Iterator

import pytest

from tests.support.clock import until
from tests.support.fault_site import OpenSite
from tests.support.redis import SECRET, RedisServer
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import Page, Server
from tests.support.visitors import ACCOUNTS, FORM, Answer, People, TimedBrowser, shape_of

GONE = "Rate limit storage unreachable"


class FromEverywhere(TimedBrowser):
    """A browser behind a proxy, so that no two have one address and none meets the limit."""

    numbers = itertools.count(1)

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        number = next(self.numbers)
        self.address = f"10.0.{number // 250}.{number % 250}"

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Page:
        """Send one request as the proxy passes it on."""
        return super().send(method, path, {**headers, "X-Forwarded-For": self.address}, body)


class Crowd(People):
    """People with an address each."""

    def request_reset(self, address: str, *, known: bool) -> Answer:
        """Open the form in a new browser, send it, and note the answer."""
        browser = FromEverywhere(self.server)
        page = browser.submit(FORM, email=address)
        answer = Answer(address, known, page.status, shape_of(page), browser.seconds)
        self.answers.append(answer)
        return answer


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Return a Redis server that runs."""
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize(
    ("fault", "done"),
    [("Redis stopped", "killed, then started anew"), ("Redis hung", "SIGSTOP, then SIGCONT")],
    ids=["stopped", "hung"],
)
def test_without_redis_the_limits_go_on_and_nobody_waits_for_long(
    open_site: OpenSite, mail: ScriptedServer, redis: RedisServer, fault: str, done: str
) -> None:
    site = open_site(mail, REDIS_URL=redis.url, RATELIMIT_ENABLED="true", TRUSTED_PROXIES=1)
    site.people = Crowd(site.people.server, ACCOUNTS)
    site.people.request_resets(2, again=1)
    with site.people.requesting_resets():
        redis.stop() if fault.endswith("stopped") else redis.freeze()
        until(lambda: site.log().count(GONE) >= 2, "both processes to go on without Redis")
        before = len(site.people.answers)
        until(lambda: len(site.people.answers) > before + 8, "more people")
        redis.start() if fault.endswith("stopped") else redis.thaw()
        site.repaired()
        redis.execute("FLUSHALL")
        until(redis.counts, "a request that is counted in Redis again")
    site.settle()
    assert SECRET not in site.log()
    seen = "a wait of at most 0.5 s, then each process counted for itself; Redis counts again by itself"
    site.check(fault, done, seen)
