"""`flask run`: one process serves, and one thread of it delivers."""

import os
import time
from pathlib import Path

import pytest

from tests.support.app import MakeApp, add_user
from tests.support.clock import until
from tests.support.databases import on_sqlite
from tests.support.instance import STARTED, Instance, Serve
from tests.support.pages import link_in
from tests.support.servers import Browser, FlaskRun, copy_of_the_project

pytestmark = on_sqlite  # test_stopping.py runs it on both


def request_reset(server, email="alice@example.com"):
    page = Browser(server).submit("/password-reset/", email=email)
    assert (page.status, page.headers["Location"]) == (302, "/password-reset/done/")


@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["plain", "debug"])
def test_a_reset_asked_for_is_emailed_within_seconds_by_exactly_one_worker_while_nobody_visits(
    make_app: MakeApp, instance: Instance, serve: Serve, observer, options
):
    add_user(make_app(), "alice@example.com", "seven green lanterns drift")
    server = serve(FlaskRun, *options, PYTHONPATH=observer, OUTBOX_POLL_SECONDS=None)
    request_reset(server)
    asked = time.monotonic()
    mail = instance.wait_for_emails(1)
    assert time.monotonic() - asked < 20
    assert link_in(mail).startswith(f"{server.url}/password-reset-confirm/")
    instance.wait_until_all_is_sent()
    assert server.log().count(STARTED) == 1
    assert len(server.processes()) == (2 if options else 1)


def test_without_debug_the_reloader_can_be_asked_for_and_there_is_still_one_worker(
    instance: Instance, serve: Serve, observer
):
    class Reloading(FlaskRun):
        def command(self):
            return *super().command(), "--reload"

    server = serve(Reloading, PYTHONPATH=observer)
    Browser(server).submit("/register/", email="new@example.com")
    instance.wait_for_emails(1)
    assert server.log().count(STARTED) == 1
    assert len(server.processes()) == 2


def test_with_debug_but_no_reloader_the_one_process_has_the_worker(instance: Instance, serve: Serve, observer):
    class NotReloading(FlaskRun):
        def command(self):
            return *super().command(), "--no-reload"

    server = serve(NotReloading, "--debug", PYTHONPATH=observer)
    Browser(server).submit("/register/", email="new@example.com")
    instance.wait_for_emails(1)
    assert server.log().count(STARTED) == 1
    assert server.processes() == [server.pid]


def test_a_changed_file_reloads_and_the_new_process_delivers(
    instance: Instance, serve: Serve, observer, tmp_path: Path
):
    project = copy_of_the_project(tmp_path / "project")
    server = serve(FlaskRun, "--debug", root=project, PYTHONPATH=observer)
    os.utime(project / "wsgi.py", (time.time() + 5, time.time() + 5))
    until(lambda: server.log().count(STARTED) == 2, "a second start")
    until(server._answers, "an answer after the reload")
    Browser(server).submit("/register/", email="new@example.com")
    instance.wait_for_emails(1)
    first, second = (line.split()[-1] for line in server.log().splitlines() if line.startswith(STARTED))
    assert first != second
    assert len(server.processes()) == 2


def test_outbox_worker_none_starts_no_worker_and_the_email_waits_for_one(instance: Instance, serve: Serve, observer):
    server = serve(FlaskRun, PYTHONPATH=observer, OUTBOX_WORKER="none")
    Browser(server).submit("/register/", email="new@example.com")
    server.press_ctrl_c()
    assert server.wait() == 0
    assert STARTED not in server.log()
    assert instance.waiting() == 1
    assert instance.emails() == []


def test_commands_start_no_worker(instance: Instance, observer):
    done = instance.run("-m", "flask", "outbox", "status", PYTHONPATH=observer)
    assert done.returncode == 0
    assert STARTED not in done.stdout


def test_each_email_leaves_one_line_on_the_console_that_names_the_page_it_can_be_read_on(
    instance: Instance, serve: Serve
):
    server = serve(FlaskRun)
    Browser(server).submit("/register/", email="new@example.com")
    instance.wait_for_emails(1)
    lines = until(lambda: [line for line in server.log().splitlines() if "/mailbox/" in line], "the line")
    assert len(lines) == 1
    page = Browser(server).get(lines[0].rpartition(server.url)[2])
    assert page.status == 200
    assert "new@example.com" in page.text
