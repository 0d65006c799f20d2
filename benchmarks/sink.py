"""The SMTP server that benchmarks deliver to: a process of its own, which writes a line for each email it accepts.

It offers STARTTLS and a login and, as most servers do, PIPELINING.
`python -m benchmarks.sink FOLDER PORT LATENCY` runs until it is terminated.
"""

import asyncio
import json
import re
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from benchmarks.processes import HOST, free_port, running, wait_for_port

MESSAGE_ID = re.compile(rb"^Message-ID: (\S+)\r$", re.MULTILINE | re.IGNORECASE)
LINK = re.compile(rb"^(http\S+/password-reset-confirm/\S+?)\r$", re.MULTILINE)


class Email(NamedTuple):
    """What is kept of an email."""

    at: float  # time.monotonic(), which all processes of a machine share
    message_id: str
    recipient: str
    link: str | None
    connection: int  # the client's port


class Sink:
    """The server, as a benchmark sees it.

    Args:
        port: on loopback.
        certificate: of the authority that signed the server's own.
        emails: a line for each.
    """

    def __init__(self, port: int, certificate: Path, emails: TextIO) -> None:
        self.port = port
        self.certificate = certificate
        self._emails = emails

    def settings(self, port: int | None = None) -> dict[str, str]:
        """Return the settings of an application that delivers here, or to the port of a proxy."""
        return {
            "EMAIL_HOST": "localhost",
            "EMAIL_PORT": str(port or self.port),
            "EMAIL_USE_TLS": "true",
            "EMAIL_USER": "mailer@example.com",
            "EMAIL_PASS": "abcdefghijklmnop",
            "EMAIL_FROM": "accounts@example.com",
            "SSL_CERT_FILE": str(self.certificate),
        }

    def new_emails(self) -> list[Email]:
        """Return the emails that arrived since the last call."""
        return [Email(*json.loads(line)) for line in self._emails]


@contextmanager
def smtp_sink(folder: Path, latency: float = 0.0) -> Iterator[Sink]:
    """Run the server.

    Args:
        folder: for the certificate and the emails.
        latency: seconds before each of its replies.
    """
    port = free_port()
    with running(folder, "-m", "benchmarks.sink", str(folder), str(port), str(latency)):
        wait_for_port(port)
        with (folder / "emails").open(encoding="utf-8") as emails:
            yield Sink(port, folder / "ca.pem", emails)


class _Hooks:
    def __init__(self, folder: Path) -> None:
        self._emails = (folder / "emails").open("w", buffering=1, encoding="utf-8")

    async def handle_EHLO(self, smtp: Any, session: Session, envelope: Any, hostname: str, replies: list[str]) -> Any:  # noqa: N802 (aiosmtpd)
        session.host_name = hostname
        return ["\r\n".join([replies[0], "250-PIPELINING", *replies[1:]])]  # one reply, so one latency

    async def handle_DATA(self, smtp: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd)
        # Searched and not parsed, which would cost more than receiving it.
        content = envelope.original_content or b""
        message_id = MESSAGE_ID.search(content)
        link = LINK.search(content)
        assert message_id
        text = link[1].decode() if link else None
        email = Email(time.monotonic(), message_id[1].decode(), envelope.rcpt_tos[0], text, session.peer[1])
        self._emails.write(json.dumps(email) + "\n")
        return "250 2.0.0 OK"


class _SMTP(SMTP):
    latency = float(sys.argv[3]) if __name__ == "__main__" else 0.0

    async def push(self, status: Any) -> None:
        await asyncio.sleep(self.latency)
        await super().push(status)


async def _serve(folder: Path, port: int) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost", HOST).configure_cert(context)
    hooks = _Hooks(folder)
    options = {"tls_context": context, "auth_required": True, "enable_SMTPUTF8": True}
    server = await asyncio.get_running_loop().create_server(
        lambda: _SMTP(hooks, **options, authenticator=lambda *_: AuthResult(success=True)), HOST, port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
