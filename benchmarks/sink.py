"""The mail server that benchmarks deliver to, in a process of its own, and how they ask it what came.

Decides what it remembers of a mail: when it came, its Message-ID, its recipient and its link. It is the tests' server,
with STARTTLS and a login, and it says (as most servers do) that it takes commands ahead of its answers (PIPELINING).
`python -m benchmarks.sink FOLDER LATENCY` runs until its input ends; each line of input is answered by what came since.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.certificates import Authority
from tests.support.smtp import Record, SMTPServer

LOGIN = ("mailer@example.com", "abcdefghijklmnop")
MESSAGE_ID = re.compile(rb"^Message-ID: (\S+)\r$", re.MULTILINE | re.IGNORECASE)
LINK = re.compile(rb"^(http\S+/password-reset-confirm/\S+?)\r$", re.MULTILINE)


class Mail(NamedTuple):
    """What is kept of a mail."""

    at: float  # time.monotonic(), which all processes of a machine share
    message_id: str
    recipient: str
    link: str | None


class Sink:
    """The process, as a benchmark sees it.

    Args:
        folder: for the certificate of who vouches for it.
        latency: seconds before each of its replies.
    """

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self.certificate = folder / "ca.pem"
        self._command = [sys.executable, "-m", "benchmarks.sink", str(folder), str(latency)]
        self._lock = threading.Lock()
        self.logins = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._answer())
        self.pid = self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def settings(self, port: int | None = None) -> dict[str, str]:
        """Return what an application needs to be told; the certificate goes into SSL_CERT_FILE.

        Args:
            port: of something in between.
        """
        return {
            "EMAIL_HOST": "localhost",
            "EMAIL_PORT": str(port or self.port),
            "EMAIL_USE_TLS": "true",
            "EMAIL_USER": LOGIN[0],
            "EMAIL_PASS": LOGIN[1],
            "EMAIL_FROM": "accounts@example.com",
        }

    def news(self) -> list[Mail]:
        """Return the mails that came since the last call."""
        with self._lock:
            assert self._process.stdin
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            self.logins, mails = json.loads(self._answer())
        return [Mail(*mail) for mail in mails]

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


class _Server(SMTPServer):
    extensions = ("PIPELINING",)

    def __init__(self, latency: float, authority: Authority) -> None:
        super().__init__(tls_context=authority.good, auth=LOGIN, latency=latency)
        self.came: deque[Mail] = deque()

    def record(self, message: Record) -> None:
        # By looking, and not by taking the mail apart, which would cost more than receiving it.
        message_id, link = MESSAGE_ID.search(message.content), LINK.search(message.content)
        assert message_id
        text = link[1].decode() if link else None
        self.came.append(Mail(time.monotonic(), message_id[1].decode(), message.rcpt_tos[0], text))

    def news(self) -> list[Mail]:
        return [self.came.popleft() for _ in range(len(self.came))]


def main() -> None:
    """Serve until the input ends."""
    folder, latency = Path(sys.argv[1]), float(sys.argv[2])
    authority = Authority()
    authority.ca_pem_path(folder)
    with _Server(latency, authority) as server:
        print(server.port, flush=True)
        for _ in sys.stdin:
            print(json.dumps([server.logins, server.news()]), flush=True)


if __name__ == "__main__":
    main()
