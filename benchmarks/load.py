"""Ten minutes of mixed traffic on one machine: `python -m benchmarks.load`.

Decides what runs (gunicorn, PostgreSQL, Redis, and Celery or `flask outbox run`), how long, and what must hold in the
end: no error, nothing lost, nothing twice, memory that stays, and a 95th percentile below 50 ms. The limits per client
are on: visitors come from addresses of their own, as behind a proxy.
"""

import argparse
import asyncio
import re
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbits, token_urlsafe

import psycopg

from benchmarks import verdict
from benchmarks.http import Site
from benchmarks.pace import SEARCH, Pace
from benchmarks.post import Post
from benchmarks.processes import AS_IN_PRODUCTION, OutboxRun, processor_seconds, resident_memory, running
from benchmarks.report import Report, tidy_up_on_sigterm
from benchmarks.sink import Sink
from benchmarks.stores import add_users, application, own_folder, postgresql
from benchmarks.visits import PASSWORD, Books, Town, addresses
from pwreset.passwords import make_password
from tests.support.celery import CeleryBeat, CeleryWorker
from tests.support.redis import RedisServer
from tests.support.servers import Gunicorn, Server

DRAINED_WITHIN = 180.0  # seconds: what was put off waits a minute
COUNTS = {
    "events": "SELECT kind, count(*) FROM security_events GROUP BY kind",
    "waiting": "SELECT kind, count(*) FROM outbox GROUP BY kind",
}
# What tells why something is left; no address.
LEFT = """SELECT format('%s, asked for %s s ago, due in %s s, leased: %s, attempts: %s, %s', kind,
    round(extract(epoch FROM now() - created_at)), round(extract(epoch FROM run_after - now())), leased, attempts,
    coalesce(failure, 'no failure')) FROM outbox ORDER BY id LIMIT 10"""
WARNINGS = re.compile(r"^.*(?:WARNING|ERROR|CRITICAL|Traceback).*$", re.MULTILINE)


@dataclass
class Run:
    """What a run left to judge."""

    minutes: float
    books: Books
    post: Post
    began: float = 0.0  # when the measured part began, on the loop's clock
    ended: float = 0.0
    rates: list[float] = field(default_factory=list)
    memory: list[dict[str, int]] = field(default_factory=list)  # after the first minute, and at the end; by process
    processors: Counter[str] = field(default_factory=Counter)  # seconds in the measured part, by what used them
    events: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)  # a sentence for each row, and what the processes warned of


def main() -> None:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="measured, after one that looks for the rate")
    parser.add_argument("--delivery", choices=["celery", "run"], default="celery", help="run: `flask outbox run`")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/performance.md")
    parser.add_argument("--seed", type=int, default=randbits(32), help="of chance, to repeat a run")
    options = parser.parse_args()
    tidy_up_on_sigterm()
    report = Report("benchmarks.load")
    run = measure(options.minutes, options.delivery, options.seed)
    verdict.write(run, report, options.delivery)
    report.end(record=options.record)


def measure(minutes: float, delivery: str, seed: int) -> Run:
    """Start everything, let visitors come, and return what was seen."""
    with ExitStack() as stack:
        folder = stack.enter_context(own_folder())
        sink = stack.enter_context(Sink(folder))
        database = stack.enter_context(postgresql(folder))
        redis = stack.enter_context(RedisServer())
        with application(folder, database) as app, app.app_context():
            add_users(addresses(), make_password(PASSWORD))
        servers = _servers(folder, _settings(sink, redis, database), delivery)
        stack.enter_context(running(*servers))
        return asyncio.run(_traffic(minutes, seed, servers, sink, database["DATABASE_URL"]))


def _settings(sink: Sink, redis: RedisServer, database: dict[str, str]) -> dict[str, object]:
    return {
        **AS_IN_PRODUCTION,
        **sink.settings(),
        **database,
        "SSL_CERT_FILE": str(sink.certificate),
        "SECRET_KEY": token_urlsafe(48),
        "REDIS_URL": redis.url,
        "TRUSTED_PROXIES": 1,
    }


def _servers(folder: Path, settings: dict[str, object], delivery: str) -> list[Server]:
    if delivery == "celery":
        settings["CELERY_BROKER_URL"] = settings["REDIS_URL"]
    web = Gunicorn(folder, **settings, OUTBOX_WORKER="none")
    kinds = [CeleryWorker, CeleryBeat] if delivery == "celery" else [OutboxRun, OutboxRun]
    return [web, *(kind(folder, **settings, PUBLIC_URL=web.url) for kind in kinds)]


async def _traffic(minutes: float, seed: int, servers: list[Server], sink: Sink, database: str) -> Run:
    town = Town(Site(servers[0].port), Post(sink), seed)
    run = Run(minutes, town.books, town.post)
    pace = Pace(town.visit, town.books, seed)
    collecting = asyncio.ensure_future(town.post.collect())
    watching = asyncio.ensure_future(_watch(run, pace, servers, sink))
    await pace.keep(SEARCH + 60 * minutes)
    await watching
    await pace.let_all_finish()
    await _wait_for_an_empty_outbox(database)
    collecting.cancel()
    await town.post.look()
    run.events, run.waiting = (_counted(database, query) for query in COUNTS.values())
    if run.waiting:
        run.left = _left(database, servers)
    return run


def _left(database: str, servers: list[Server]) -> list[str]:
    with psycopg.connect(database) as connection:
        rows = [row for (row,) in connection.execute(LEFT)]
    return rows + [line for server in servers for line in WARNINGS.findall(server.log())][-20:]


async def _watch(run: Run, pace: Pace, servers: list[Server], sink: Sink) -> None:
    """Look at memory and processors after the first minute and at the end, and say how it goes in between."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(SEARCH)
    run.began = loop.time()
    run.memory.append(_memory(servers))
    before = _processors(servers, sink)
    run.ended = run.began + 60 * run.minutes
    while (left := run.ended - loop.time()) > 0:
        run.rates.append(pace.rate)
        print(f"{left:5.0f} s to go, {pace.rate:.1f} visits a second, {len(run.books.errors)} errors", flush=True)
        await asyncio.sleep(min(30.0, left))
    run.memory.append(_memory(servers))
    run.processors = Counter(_processors(servers, sink))
    run.processors.subtract(before)


def _memory(servers: list[Server]) -> dict[str, int]:
    found = {}
    for server in servers:
        for pid in server.processes():
            role = "first" if pid == server.pid else "child"
            found[f"{type(server).__name__}, {role} ({pid})"] = resident_memory(pid)
    return found


def _processors(servers: list[Server], sink: Sink) -> dict[str, float]:
    used = {type(server).__name__: sum(map(processor_seconds, server.processes())) for server in servers}
    return used | {"visitors (this program)": time.process_time(), "mail sink": processor_seconds(sink.pid)}


async def _wait_for_an_empty_outbox(database: str) -> None:
    end = time.monotonic() + DRAINED_WITHIN
    while sum(_counted(database, COUNTS["waiting"]).values()) and time.monotonic() < end:
        await asyncio.sleep(1)


def _counted(database: str, query: str) -> dict[str, int]:
    with psycopg.connect(database) as connection:
        return dict(connection.execute(query).fetchall())


if __name__ == "__main__":
    main()
