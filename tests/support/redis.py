"""Real Redis servers for one test, and servers that only pretend to be Redis.

It decides how they are started, frozen and stopped; it asserts nothing about the application and never imports it.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.clock import PATIENCE, until
from tests.support.servers import free_port

HOST = "127.0.0.1"
SECRET = "correct-horse-of-redis"
Answer = Callable[[socket.socket], None]


class RedisServer:
    """`redis-server` on a port of its own, keeping nothing on disk, with SECRET as its password.

    Args:
        options: more of its command line, such as `--maxmemory 1`.
        port: None takes a free one; it stays the same when the server is started again.
    """

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://:{SECRET}@{HOST}:{self.port}/0"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it answers."""
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        fixed = ("--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no", "--requirepass", SECRET)
        self._process = subprocess.Popen(["redis-server", *fixed, *self._options], stdout=subprocess.DEVNULL)
        try:
            until(self._answers, f"an answer from Redis on port {self.port}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill it; its counts are lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Freeze it: the kernel still accepts connections, but nothing answers."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it was."""
        self._send(signal.SIGCONT)

    def execute(self, *command: str) -> Any:
        """Send one command and return the answer."""
        with closing(Redis.from_url(self.url, socket_timeout=PATIENCE)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def counts(self) -> dict[str, int]:
        """Return all that it keeps: the counts, by key."""
        return counts_in(self.url)

    def _answers(self) -> bool:
        with suppress(RedisError):
            return bool(self.execute("PING"))
        return False

    def _send(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class FalseRedis:
    """A server that accepts connections and calls a function with each.

    Args:
        answer: called with every connection, in a thread of its own.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer, self._listener = answer, socket.create_server((HOST, 0))
        self._connections: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.url = f"redis://:{SECRET}@{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._connections):
            with suppress(OSError):  # the other side is gone already
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the test is over
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self._answer(connection)
            connection.shutdown(socket.SHUT_RDWR)


def counts_in(url: str) -> dict[str, int]:
    """Return all that the Redis at this URL keeps: the counts, by key."""
    with closing(Redis.from_url(url, socket_timeout=PATIENCE)) as client:
        return {key.decode(): int(client.get(key) or 0) for key in client.scan_iter()}


def saying(text: bytes) -> Answer:
    """Return what answers these bytes to everything."""

    def answer(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(text)

    return answer
