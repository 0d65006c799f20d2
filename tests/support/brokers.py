"""Real brokers for one test, Redis and RabbitMQ, which it can start, freeze, empty and stop.

It decides how they run and what a broker must be able to do; it asserts nothing about the application and never imports
it.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError, OperationalError

from tests.support.clock import PATIENCE, until
from tests.support.redis import HOST, SECRET, RedisServer
from tests.support.servers import free_port

QUEUE = "pwreset.deliver"
# Not the command `rabbitmq-server`, which is for the machine's own and changes to its user.
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONFIGURATION = """
listeners.tcp.1 = {host}:{port}
default_user = pwreset
default_pass = {secret}
log.file = false
log.console = true
log.console.level = warning
"""


class Broker(ABC):
    """A broker, on a port that stays the same when it is started again."""

    url: str
    port: int

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Kill it."""

    @abstractmethod
    def freeze(self) -> None:
        """Freeze it: the kernel still accepts connections, but nothing answers."""

    @abstractmethod
    def thaw(self) -> None:
        """Let it go on where it was."""

    @abstractmethod
    def forget_everything(self) -> None:
        """Delete what it holds, queues too."""

    @abstractmethod
    def reject_clients(self) -> None:
        """Reject all clients with an error."""

    @abstractmethod
    def accept_clients(self) -> None:
        """Accept clients again."""

    @abstractmethod
    def contents(self) -> list[bytes]:
        """Return everything that it holds."""

    def waiting_tasks(self) -> int:
        """How many tasks wait in it."""
        with Connection(self.url, connect_timeout=5) as connection, suppress(ChannelError):  # no queue, no tasks
            return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)
        return 0


class Redis(RedisServer, Broker):
    """`redis-server`."""

    def forget_everything(self) -> None:
        """Delete every key."""
        self.execute("FLUSHALL")

    def reject_clients(self) -> None:
        """Become a replica, as after a failover."""
        self.execute("REPLICAOF", HOST, "1")

    def accept_clients(self) -> None:
        """Become what one may write to."""
        self.execute("REPLICAOF", "NO", "ONE")

    def contents(self) -> list[bytes]:
        """Return every key, and what it holds."""
        return [self._dump(key) for key in self.execute("KEYS", "*")]

    def _dump(self, key: bytes) -> bytes:
        read = {
            b"list": ("LRANGE", key, 0, -1),
            b"hash": ("HGETALL", key),
            b"set": ("SMEMBERS", key),
            b"zset": ("ZRANGE", key, 0, -1),
            b"string": ("GET", key),
            b"none": ("GET", key),  # taken between the two commands
        }
        return key + b" " + repr(self.execute(*read[self.execute("TYPE", key)])).encode()


class RabbitMQ(Broker):
    """A RabbitMQ node.

    Args:
        folder: where it keeps everything.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port = folder, free_port()
        self.url = f"amqp://pwreset:{SECRET}@{HOST}:{self.port}//"
        self._names_port, self._distribution_port = free_port(), free_port()
        self._node: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers, which takes it a while."""
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start, and wait for nothing."""
        if not RABBITMQ.exists():
            pytest.skip("RabbitMQ is not installed")
        configuration = CONFIGURATION.format(host=HOST, port=self.port, secret=SECRET)
        (self.folder / "rabbitmq.conf").write_text(configuration, encoding="utf-8")
        (self.folder / "enabled_plugins").write_text("[].", encoding="utf-8")
        if self._names is None:  # or Erlang starts one that stays for ever
            command = ["epmd", "-port", str(self._names_port), "-address", HOST]
            self._names = subprocess.Popen(command, env=self._environment())
        with (self.folder / "log").open("ab") as log:
            self._node = subprocess.Popen([RABBITMQ], env=self._environment(), stdout=log, stderr=log)

    def wait_until_it_answers(self) -> None:
        """Wait until it takes connections."""
        assert self._node is not None
        until(self._answers, "an answer from RabbitMQ", timeout=4 * PATIENCE)

    def stop(self) -> None:
        """Take it away at once, with the process that tells nodes apart."""
        for process in (self._node, self._names):
            if process is not None:
                process.kill()
                process.wait(PATIENCE)
        self._names = None

    def freeze(self) -> None:
        """Let it hang."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it was."""
        self._send(signal.SIGCONT)

    def forget_everything(self) -> None:
        """Delete the queue."""
        with Connection(self.url, connect_timeout=5) as connection:
            connection.default_channel.queue_delete(QUEUE)

    def reject_clients(self) -> None:
        """Change the password, and end what connections there are."""
        self._control("change_password", "pwreset", "another")
        self._control("close_all_connections", "the password has changed")

    def accept_clients(self) -> None:
        """Change the password back."""
        self._control("change_password", "pwreset", SECRET)

    def contents(self) -> list[bytes]:
        """Return what waits in the queue, with headers and all; it stays there."""
        contents: list[bytes] = []
        with Connection(self.url, connect_timeout=5) as connection:
            channel = connection.default_channel
            while message := channel.basic_get(QUEUE, no_ack=False):
                contents.append(repr((message.body, message.properties)).encode())
        return contents

    def _answers(self) -> bool:
        assert self._node is not None
        assert self._node.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
        with suppress(OSError, OperationalError), Connection(self.url, connect_timeout=1) as connection:
            return bool(connection.connect())
        time.sleep(0.2)
        return False

    def _control(self, *command: str) -> None:
        subprocess.run(
            [RABBITMQ.with_name("rabbitmqctl"), *command], env=self._environment(), capture_output=True, check=True
        )

    def _send(self, number: int) -> None:
        assert self._node is not None
        os.kill(self._node.pid, number)

    def _environment(self) -> dict[str, str]:
        settings: dict[str, Any] = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,  # of the cookie
            "RABBITMQ_CONF_ENV_FILE": self.folder / "none",
            "RABBITMQ_CONFIG_FILE": self.folder / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "enabled_plugins",
            "RABBITMQ_MNESIA_BASE": self.folder / "mnesia",
            "RABBITMQ_LOG_BASE": self.folder,
            "RABBITMQ_PID_FILE": self.folder / "pid",
            "RABBITMQ_NODENAME": f"pwreset{self.port}@localhost",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_DIST_PORT": self._distribution_port,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none",
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": self._names_port,
            "detached": 1,  # one process, without a shell around it
        }
        return {name: str(value) for name, value in settings.items()}


class BrokerProxy:
    """A proxy in front of a broker that can block: no bytes pass, and neither side notices.

    Args:
        broker: the broker behind it.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker, self._listener = broker, socket.create_server((HOST, 0))
        self.url = broker.url.replace(f":{broker.port}", f":{self._listener.getsockname()[1]}")
        self._passing = threading.Event()  # of the connections made from now on
        self._passing.set()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, *self._ends):
            _shut(end)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def block(self) -> None:
        """Pass no more bytes, on old and new connections."""
        self._passing.clear()

    def unblock(self) -> None:
        """Pass bytes on new connections; the old ones stay blocked."""
        self._passing = threading.Event()
        self._passing.set()

    def _accept(self) -> None:
        with suppress(OSError):  # the test is over
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((HOST, self._broker.port))
                self._ends += near, far
                for source, target in ((near, far), (far, near)):
                    thread = threading.Thread(target=_pass, args=(source, target, self._passing))
                    self._threads.append(thread)
                    thread.start()


def _pass(source: socket.socket, target: socket.socket, passing: threading.Event) -> None:
    with suppress(OSError):  # one side is gone
        while received := source.recv(65536):
            if passing.is_set():
                target.sendall(received)
    if passing.is_set():
        _shut(source)
        _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        end.shutdown(socket.SHUT_RDWR)
