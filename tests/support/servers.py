"""Real server processes for the tests, and a browser that visits them over HTTP.

It decides how a process is started (a clean environment, a process group of its own) and that none outlives its test.
It asserts nothing about pages and never imports the application.
"""

import html
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Self

from tests.support.clock import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
OWN_PORTS = range(15_000, 32_000)  # below those that the kernel hands to outgoing connections


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return all that a process gets to know: nothing of the developer's own environment or `.env`.

    Args:
        folder: its instance folder.
        settings: more variables; None leaves one out.
    """
    given = {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "INSTANCE_PATH": folder,
        "FLASK_SKIP_DOTENV": 1,
        "OUTBOX_POLL_SECONDS": 0.1,
        "PYTHONWARNINGS": "default,ignore::ResourceWarning",  # shown, so that a test sees them; gunicorn leaves sockets
        **settings,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def run(
    folder: Path, *arguments: str, stdin: str = "", root: Path = ROOT, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in the project to its end; the caller checks the status."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment(folder, **settings),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def copy_of_the_project(folder: Path) -> Path:
    """Copy what runs into a folder, for a test that changes a file, and return it."""
    for name in ("pwreset", "templates", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.py", "config_checks.py", "wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


class Server(ABC):
    """A server process with its children, on a port of its own.

    Args:
        folder: the instance folder; the output is kept in it too.
        options: of the server's command line.
        root: the project's folder.
        settings: environment variables; None leaves one out.
    """

    def __init__(self, folder: Path, *options: str, root: Path = ROOT, **settings: object) -> None:
        self.folder, self.options, self.root, self.settings = folder, options, root, settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / f"{type(self).__name__.lower()}-{self.port}.log"
        self.prefix: Sequence[str] = ()  # a command that runs it, such as `faketime -f +1h`
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return what follows `python`."""

    def own_settings(self) -> dict[str, object]:
        """Return what this kind of server needs in its environment."""
        return {}

    def launch(self) -> Self:
        """Start the process, and wait for nothing."""
        with self.output.open("ab") as output, _interruptible_children():
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, *self.command()],
                cwd=self.root,
                env=environment(self.folder, **self.own_settings() | self.settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        self.launch()
        until(self._answers, f"an answer from {self}")
        return self

    def log(self) -> str:
        """Return everything the processes have printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The process that was started; its group has the same number."""
        assert self._process is not None
        return self._process.pid

    def processes(self) -> list[int]:
        """Return the ids of all that still run, children too."""
        return [pid for pid, group in _running() if group == self.pid]

    def press_ctrl_c(self) -> None:
        """Interrupt the process group, as a terminal does."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM to the first process only, as `kill` does."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait until every process has ended; return the first one's exit status."""
        assert self._process is not None
        status = self._process.wait(PATIENCE)
        until(lambda: not self.processes(), f"the end of all processes of {self}", timeout=10)
        return status

    def kill9(self) -> None:
        """Kill every process, so that none can clean up."""
        assert self._process is not None
        for pid in self.processes():
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        until(lambda: not self.processes(), f"the end of all processes of {self}")

    def stop_for_certain(self) -> None:
        """End what is still there, whatever happened."""
        if self._process is not None and (self._process.poll() is None or self.processes()):
            self.kill9()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self} ended:\n{self.log()}"
        try:
            return Browser(self).get("/healthz").status == 200
        except OSError:
            return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(self.options)}>"


class FlaskRun(Server):
    """`flask [--debug] run`, in local mode."""

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return "-m", "flask", *self.options, "run", "--port", str(self.port)


class Gunicorn(Server):
    """`gunicorn`, public on a loopback address; it needs EMAIL_PORT, the mail server's."""

    secret_key = secrets.token_urlsafe(48)

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", *self.options

    def own_settings(self) -> dict[str, object]:
        """Return the settings that public mode requires."""
        relay = {"EMAIL_HOST": "localhost", "EMAIL_FROM": "accounts@example.com"}
        return {"PUBLIC_URL": self.url, "SECRET_KEY": self.secret_key, **relay}


class OutboxRun(Server):
    """`flask outbox run`, which serves no page."""

    _launches = 0

    def launch(self) -> Self:
        """Start the process, and wait for nothing."""
        self._launches += 1
        return super().launch()

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return "-m", "flask", "outbox", "run"

    def _answers(self) -> bool:
        return self.log().count("Delivering") == self._launches


@dataclass(frozen=True)
class Page:
    """An answer."""

    status: int
    headers: Any
    text: str
    path: str


class Browser:
    """A person's browser: it keeps cookies, follows redirects and posts forms with their CSRF token.

    Args:
        server: whom it visits; it may be restarted on another port.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        no_proxy = urllib.request.ProxyHandler({})
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(no_proxy, cookies, _EveryAnswer)

    def get(self, path: str, **headers: str) -> Page:
        """Open a page and follow where it leads."""
        page = self.send("GET", path, headers)
        while page.status in {301, 302, 303}:
            page = self.send("GET", urllib.parse.urlsplit(page.headers["Location"]).path, headers)
        return page

    def submit(self, path: str, **fields: str) -> Page:
        """Open a page, send its form, and stay at the answer."""
        return self.fill_in(self.get(path), **fields)

    def fill_in(self, page: Page, **fields: str) -> Page:
        """Send the form of a page that is open."""
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
        assert token, f"no form at {page.path}: {page.status}"
        fields["csrf_token"] = html.unescape(token[1])
        return self.send("POST", page.path, {}, urllib.parse.urlencode(fields).encode())

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Page:
        """Send one request and return the answer, whatever its status."""
        request = urllib.request.Request(self.server.url + path, body, headers, method=method)  # noqa: S310 (ours)
        with self._opener.open(request, timeout=PATIENCE) as answer:
            return Page(answer.status, answer.headers, answer.read().decode(), path)


class _EveryAnswer(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        return response


def free_port() -> int:
    """Return a port where nobody listens, and that no outgoing connection gets before a server has it."""
    while True:
        port = secrets.choice(OWN_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def _interruptible_children() -> Iterator[None]:
    # A shell ignores SIGINT for its background jobs, and what is ignored stays ignored in children.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():  # no other may change it
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _running() -> Iterator[tuple[int, int]]:
    """List all processes that are not zombies, with their groups."""
    if Path("/proc/self/stat").exists():
        yield from _running_on_linux()
        return
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, group, state = line.split()
        if not state.startswith("Z"):
            yield int(pid), int(group)


def _running_on_linux() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if state not in "ZX":
            yield int(folder.name), int(group)
