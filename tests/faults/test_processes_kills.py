"""Kills under traffic, 200 of them on PostgreSQL: a process ends at any moment and starts again, as under systemd."""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.accounting import kept_by
from tests.support.clock import PATIENCE, until
from tests.support.fault_site import NAMES, FaultSite, OpenSite
from tests.support.scripted_smtp import ScriptedServer, drip
from tests.support.servers import Gunicorn, OutboxRun, Page, Server
from tests.support.visitors import FORM, Answer, TimedBrowser, shape_of

KILLS, SEED = {"postgresql": 200, "sqlite": 50}, 20261123
LONGEST_PAUSE = 0.5  # seconds from one kill to the next
SOON_ON_CI = 3.0  # seconds: a machine may be slow to start processes; who waits for a mail server waits for longer
SETTINGS = {"WEB_CONCURRENCY": 4, "OUTBOX_LEASE_SECONDS": 6, "EMAIL_DEADLINE": 5, "EMAIL_TIMEOUT": 4}
NO_ANSWER = OSError, HTTPException
ASKERS = 4
OPEN = "01"  # a TCP line, in /proc/net/tcp


class Supervisor:
    """Starts what has ended, as systemd does; what a dead main process left behind is killed first (KillMode=mixed).

    Args:
        servers: that run already.
    """

    def __init__(self, *servers: Server) -> None:
        self.up, self.stopping = set(servers), threading.Event()
        self._servers = servers

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Watch as long as the block runs, and leave with everything up."""
        with ThreadPoolExecutor(len(self._servers)) as pool:
            jobs = [pool.submit(self._watch, server) for server in self._servers]
            try:
                yield
                until(lambda: len(self.up) == len(self._servers) or any(job.done() for job in jobs), "all servers up")
            finally:
                self.stopping.set()
                for job in jobs:
                    job.result()

    def processes(self) -> list[tuple[int, Server]]:
        """Return all processes of the servers that are up, with theirs."""
        return [(pid, server) for server in self._servers if server in self.up for pid in server.processes()]

    def _watch(self, server: Server) -> None:
        while not self.stopping.wait(0.05):
            if os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self.up.discard(server)
                server.stop_for_certain()
                server.start()
                self.up.add(server)


class Crowd:
    """People who ask on and on, each address once, and who are not surprised to be cut off.

    Args:
        site: where they ask.
        known: addresses that have an account.
    """

    def __init__(self, site: FaultSite, known: list[str]) -> None:
        self.site, self._known, self._numbers = site, iter(known), itertools.count()
        self.unanswered: list[tuple[str, bool]] = []
        self._enough = threading.Event()

    @contextmanager
    def requesting_resets(self) -> Iterator[None]:
        """Ask as long as the block runs."""
        with ThreadPoolExecutor(ASKERS) as pool:
            jobs = [pool.submit(self._go_on) for _ in range(ASKERS)]
            try:
                yield
            finally:
                self._enough.set()
                for job in jobs:
                    job.result()

    def book_what_came_of_the_unanswered(self) -> int:
        """Take for accepted, as if answered, every request without an answer that was stored; return how many.

        Nobody was promised anything about them, but the books have to know whose email it is.
        """
        mailed = {address for address, _ in kept_by(self.site.mail)}
        known = [address for address, has_account in self.unanswered if has_account and address in mailed]
        answered = sum(not answer.known for answer in self.site.people.answers)
        strangers = self.site.tables.counted().get("unaddressed", 0) - answered
        assert 0 <= strangers <= sum(not has_account for _, has_account in self.unanswered)
        shape = self.site.people.answers[0].shape
        stored = [(address, True) for address in known] + [("a stranger", False)] * strangers
        self.site.people.answers += [Answer(address, has_account, 302, shape, 0) for address, has_account in stored]
        return len(stored)

    def _go_on(self) -> None:
        known = True
        while not self._enough.wait(0.05):
            browser = TimedBrowser(self.site.people.server)
            with suppress(*NO_ANSWER):  # to what asks for nothing yet
                form = browser.get(FORM)
                address = next(self._known) if known else f"stranger-{next(self._numbers)}@example.com"
                self._send(browser, form, address, known=known)
                known = not known

    def _send(self, browser: TimedBrowser, form: Page, address: str, *, known: bool) -> None:
        try:
            page = browser.fill_in(form, email=address)
        except NO_ANSWER:
            self.unanswered.append((address, known))
        else:
            self.site.people.answers.append(Answer(address, known, page.status, shape_of(page), browser.seconds))


def kill(pid: int, server: Server, mail_port: int) -> int:
    """Kill a process, and return how many that end with it were speaking to the mail server."""
    # A server's first process takes the others with it, a moment later.
    victims = server.processes() if pid == server.pid else [pid]
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGSTOP)  # or it could open its line between the look and the kill
    speaking = sum(speaks_to(mail_port, victim) for victim in victims)
    os.kill(pid, signal.SIGKILL)
    return speaking


def speaks_to(port: int, pid: int) -> bool:
    """Whether a process has a line open to a port of this machine."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    there = {f"socket:[{field[9]}]" for field in fields if field[2].endswith(f":{port:04X}") and field[3] == OPEN}
    with suppress(FileNotFoundError):  # it has just ended
        return any(str(file.readlink()) in there for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.timeout(600)
def test_kills_of_random_processes_under_traffic_lose_nothing(
    open_site: OpenSite, mail: ScriptedServer, engine: str
) -> None:
    kills = KILLS[engine]
    mail.behave({"DOT": drip(0.02)})  # 0.3 s for each email, so that many are hit in mid-send
    site = open_site(mail, (), **SETTINGS)
    if os.environ.get("CI") == "true":
        site.soon = SOON_ON_CI
    # The machine is busy starting processes, so the workers that only send leave time for the visitors.
    servers = [site.start(Gunicorn, "--preload"), *(site.start(OutboxRun, prefix=["nice"]) for _ in range(2))]
    accounts = [f"somebody-{number:04}@example.com" for number in range(4000)]
    site.tables.add_accounts(accounts)
    crowd, supervisor, chance = Crowd(site, accounts), Supervisor(*servers), random.Random(SEED)  # noqa: S311 (no secret)
    killed: Counter[str] = Counter()
    in_a_send = 0
    with supervisor.at_work(), crowd.requesting_resets():
        while killed.total() < kills:
            time.sleep(chance.uniform(0, LONGEST_PAUSE))
            # Where processes start slowly, kills wait for people: else nobody would be answered between them.
            until(lambda: len(site.people.answers) > (killed.total() + 1) / 2, "answers between the kills")
            pid, server = chance.choice(until(supervisor.processes, "a process"))
            with suppress(ProcessLookupError):  # it has just ended by itself
                in_a_send += kill(pid, server, mail.port)
                killed[NAMES[type(server)] if pid == server.pid else "processes that serve"] += 1
            if killed.total() % 20 == 0:
                site.tables.let_time_pass()  # or second tries would all wait for the end
    until(lambda: len(servers[0].processes()) == len(site.servers[servers[0]]), "all of gunicorn's processes")
    site.remember_processes()
    assert in_a_send, "no kill hit a send: this run shows nothing"
    assert len(site.people.answers) > kills / 2, "hardly anybody was answered: this run shows nothing"
    mail.behave()
    site.repaired()
    site.settle(2 * PATIENCE)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(killed.items()))
    stored = crowd.book_what_came_of_the_unanswered()
    site.check(
        f"{kills} kills under traffic",
        f"`kill -9` of {kinds}, at random (seed {SEED}), each started again as systemd does",
        f"{in_a_send} hit a process that spoke to the mail server; {len(crowd.unanswered)} requests got no answer, "
        f"{stored} of them were stored and mailed; nothing was lost",
        copies=in_a_send,
    )
