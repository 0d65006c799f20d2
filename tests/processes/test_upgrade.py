"""New code and new settings take effect while people use the site."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clock import until
from tests.support.instance import STARTED, Instance, Serve
from tests.support.nginx import NAME, Nginx, Remote
from tests.support.servers import Browser, Gunicorn, copy_of_the_project

PUBLIC = {"PUBLIC_URL": f"https://{NAME}", "TRUSTED_PROXIES": 1, "RATELIMIT_ENABLED": "false", "EMAIL_PORT": 1}
OLD, NEW = "Page not found", "There is no such page"
OLDER = "The database is older than this code. Run: flask db upgrade"
# What systemd does with pwreset-web.socket and Restart=always: it keeps the socket, whatever becomes of the process.
SOCKET_KEEPER = """
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=2048)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
while True:
    child = os.fork()
    if child == 0:
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[2:]])
    print(f"started {child}", flush=True)
    os.waitpid(child, 0)
"""


class KeptSocket(Gunicorn):
    """gunicorn on a socket that outlives it, and is started again whenever it ends."""

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return "-c", SOCKET_KEEPER, str(self.port), *self.options

    def started(self) -> list[int]:
        """Return the ids of all that were started, the present one last."""
        return [int(line.split()[1]) for line in self.log().splitlines() if line.startswith("started ")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project, to be changed under a running server."""
    folder = tmp_path / "project"
    folder.mkdir()
    return copy_of_the_project(folder)


@contextmanager
def visitors(nginx: Nginx) -> Iterator[Counter[object]]:
    """Let four people read and post as fast as they can, and count what they are answered."""
    answers: Counter[object] = Counter()
    over = threading.Event()

    def visit() -> None:
        person = Remote(nginx)
        while not over.is_set():
            try:
                answers[person.get("/login/").status] += 1
                answers[person.submit("/password-reset/", email="nobody@example.com").status] += 1
            except OSError as error:
                answers[repr(error)] += 1

    people = [threading.Thread(target=visit) for _ in range(4)]
    for person in people:
        person.start()
    try:
        until(lambda: sum(answers.values()) > 20, "traffic")
        yield answers
        seen = sum(answers.values())
        until(lambda: sum(answers.values()) > seen + 20, "traffic afterwards")
    finally:
        over.set()
        for person in people:
            person.join()


def test_sighup_brings_new_code_and_no_request_is_lost(instance: Instance, serve: Serve, project: Path):
    server = serve(Gunicorn, root=project, **PUBLIC)
    nginx = serve(Nginx, server.port)
    with visitors(nginx) as answers:
        assert OLD in Remote(nginx).get("/none").text
        for old, new in ((OLD, NEW), (NEW, OLD)):
            change(project, old, new)
            os.kill(server.pid, signal.SIGHUP)
            until_every_process_says(new, nginx)
    assert set(answers) == {200, 302}
    assert Remote(nginx).get("/healthz").status == 200


def test_a_restart_on_a_socket_that_is_kept_brings_new_code_and_no_request_is_lost(
    instance: Instance, serve: Serve, project: Path
):
    server = serve(KeptSocket, root=project, **PUBLIC)
    nginx = serve(Nginx, server.port)
    with visitors(nginx) as answers:
        change(project, OLD, NEW)
        os.kill(server.started()[-1], signal.SIGTERM)
        until(lambda: len(server.started()) == 2, "the next gunicorn")
        until_every_process_says(NEW, nginx)
    assert set(answers) == {200, 302}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_between_new_code_and_its_migration_the_site_is_served(instance: Instance, serve: Serve, observer, number):
    server = serve(Gunicorn, EMAIL_PORT=1, PYTHONPATH=observer)
    until(lambda: server.log().count(STARTED) == 2, "two processes that have found their tables")
    instance.query("UPDATE alembic_version SET version_num = '0001'")
    os.kill(server.pid if number == signal.SIGHUP else max(server.processes()), number)
    until(lambda: OLDER in server.log(), "a new process")
    until(lambda: len(server.processes()) == 3, "as many processes as before")
    assert Browser(server).get("/healthz").status == 200
    assert Browser(server).submit("/password-reset/", email="nobody@example.com").status == 302


def change(project: Path, old: str, new: str) -> None:
    file = project / "pwreset" / "web" / "errors.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def until_every_process_says(text: str, nginx: Nginx) -> None:
    until(lambda: all(text in Remote(nginx).get("/none").text for _ in range(10)), "new code")
