"""A web process is killed during requests: an answered request is emailed, and one that was not stored never is."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException

import pytest

from tests.support.clock import PATIENCE, until
from tests.support.fault_site import FaultSite, OpenSite
from tests.support.locks import PostgreSQLProxy, locked, start_again, wait_until_blocked
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import Gunicorn, OutboxRun, Server
from tests.support.visitors import ACCOUNTS, FORM, Answer, TimedBrowser

ADDRESS = ACCOUNTS[-1]  # others are asked for from the first one on


@contextmanager
def somebody_who_gets_no_answer(site: FaultSite) -> Iterator[None]:
    """Send a form for ADDRESS while the block runs, in which the web process must end."""
    browser = TimedBrowser(site.people.server)
    form = browser.get(FORM)
    with ThreadPoolExecutor(1) as pool:
        post = pool.submit(browser.fill_in, form, email=ADDRESS)
        yield
        with pytest.raises((OSError, HTTPException)):
            post.result()


def kill_children(site: FaultSite, server: Server) -> None:
    """Kill the processes that serve, and wait until gunicorn has replaced them by itself."""
    before = set(server.processes())
    for pid in before - {server.pid}:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(after := set(server.processes())) == len(before) and after & before == {server.pid}, "a new one")
    site.remember_processes()


def test_a_request_whose_web_process_is_killed_before_its_commit_was_never_made(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = open_site(mail, (), WEB_CONCURRENCY=1)
    server = site.start(Gunicorn)
    site.people.request_resets(1)
    site.settle()
    with locked(site), somebody_who_gets_no_answer(site):
        wait_until_blocked(site, "INSERT INTO outbox")
        kill_children(site, server)
    site.repaired()
    site.people.request_resets(2)
    site.settle()
    site.check(
        "`kill -9` of the web process before its commit",
        "killed while the database kept its INSERT waiting",
        "no answer, no mail; gunicorn replaced the process",
    )


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_request_whose_web_process_is_killed_between_its_commit_and_the_answer_is_emailed(
    open_site: OpenSite, mail: ScriptedServer, database
) -> None:
    with PostgreSQLProxy(database.settings["DATABASE_URL"]) as proxy:
        site = open_site(mail, (), WEB_CONCURRENCY=1)
        server = site.start(Gunicorn, OUTBOX_WORKER="none", DATABASE_URL=proxy.url)
        site.people.request_resets(1)
        proxy.withhold.set()
        with somebody_who_gets_no_answer(site):
            assert proxy.withheld.wait(PATIENCE)
            proxy.withhold.clear()
            kill_children(site, server)
        assert [row.address for row in site.tables.waiting()].count(ADDRESS) == 1
        shape = site.people.answers[0].shape  # the books take it for answered, so that its email is expected
        site.people.answers.append(Answer(ADDRESS, known=True, status=302, shape=shape, seconds=0))
        site.repaired()
        site.start(OutboxRun)
        site.people.request_resets(1)
        site.settle()
        site.check(
            "`kill -9` of the web process between commit and answer",
            "killed while the answer to its COMMIT was kept back",
            "no answer, but the mail; gunicorn replaced the process",
        )


def test_a_request_whose_web_server_is_killed_after_the_answer_is_emailed_after_the_next_start(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = open_site(
        mail, (), WEB_CONCURRENCY=1, OUTBOX_LEASE_SECONDS=6
    )  # a row may be claimed at the moment of the kill
    server = site.start(Gunicorn)
    site.people.request_resets(1)
    site.settle()
    mail.go_down()
    site.people.request_resets(2, again=1)
    server.kill9()
    assert len(site.tables.waiting()) >= 4
    mail.restart()
    site.repaired()
    start_again(site, server)
    site.settle()
    site.people.request_resets(1)
    site.settle()
    site.check(
        "`kill -9` of the web server after its answers",
        "all its processes killed while no mail went out, then started",
        "mailed after the start, without any visit",
    )
