"""A real SMTP server on loopback that behaves well, and the base of the one that does not (scripted_smtp.py).

It decides what the server answers; it asserts nothing about the application and never imports it. aiosmtpd's
Controller is not used: it fails with a port chosen by the kernel (it connects to port 0), and that connection would
be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import logging
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from types import TracebackType
from typing import Any, AnyStr, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session, TLSSetupException

HOST = "127.0.0.1"
TEARDOWN_SECONDS = 5.0
WRONG_LOGIN = "535 5.7.8 Username and Password not accepted"

# aiosmtpd logs every line of every email, links included. In the tests' own process that would look as if
# the app had logged them. (propagate = False is not enough: pytest's caplog listens there too.)
logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)

Reply = str | Callable[[], str | None]


def in_turn(*replies: str | None) -> Callable[[], str | None]:
    """Give each of these replies once, in order, and then None, which means the usual answer."""
    remaining = iter(replies)
    return lambda: next(remaining, None)


def _answer(override: Reply | None) -> str | None:
    return override() if callable(override) else override


class LoopbackServer(ABC):
    """A listening socket on loopback and the thread that serves it, started and stopped as a context manager."""

    host = HOST

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        self._listener = _bind(0)
        self.port = self._listener.getsockname()[1]
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.stopping.is_set():
            self._stop()
        self._listener.close()

    def go_down(self) -> None:
        """Close the port and every connection. Its number stays ours: bound and not listening, it refuses all."""
        self._stop()
        self._listener.close()
        self._listener = _bind(self.port)

    def restart(self) -> None:
        """Open the port again."""
        self.stopping.clear()
        self._listener.listen(128)
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):  # wakes accept(), which closing the listener would not
            socket.create_connection((HOST, self.port), TEARDOWN_SECONDS).close()
        self._thread.join(2 * TEARDOWN_SECONDS)
        assert not self._thread.is_alive(), f"{type(self).__name__} did not stop"

    @abstractmethod
    def _serve(self) -> None:
        """Accept until `stopping` is set, then end every connection and return."""


def _bind(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener


@dataclass(frozen=True)
class Record:
    """One email as the server accepted it."""

    mail_from: str
    rcpt_tos: list[str]
    mail_options: list[str]
    content: bytes
    smtputf8: bool
    tls: bool
    user: str | None

    @cached_property
    def message(self) -> EmailMessage:
        """The content, taken apart."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


class SMTPServer(LoopbackServer):
    """A well-behaved SMTP server that keeps the email it accepts.

    With `tls_context` it offers STARTTLS, or with `implicit_tls` too it speaks TLS from the first byte.
    With `auth` it refuses email before a login, and offers the login only inside TLS.
    The `*_reply` options are attributes as well, read anew at each command; a callable is called in the
    server's thread, and None from it means the usual answer. `latency` is waited before every reply.
    `extensions` are named in the answer to EHLO, beside aiosmtpd's own.
    """

    extensions: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        tls_context: ssl.SSLContext | None = None,
        require_starttls: bool = False,
        implicit_tls: bool = False,
        auth: tuple[str, str] | None = None,
        auth_reply: Reply | None = None,
        mail_reply: Reply | None = None,
        rcpt_reply: Reply | None = None,
        data_reply: Reply | None = None,
        smtputf8: bool = True,
        latency: float = 0.0,
    ) -> None:
        super().__init__()
        if implicit_tls and tls_context is None:
            raise ValueError("implicit_tls needs a tls_context")
        self.tls_context, self.require_starttls = tls_context, require_starttls
        self.implicit_tls, self.smtputf8, self.latency = implicit_tls, smtputf8, latency
        self.auth, self.auth_reply = auth, auth_reply
        self.mail_reply, self.rcpt_reply, self.data_reply = mail_reply, rcpt_reply, data_reply
        self.logins = 0
        self.login_attempts = 0
        self.messages: list[Record] = []
        self.errors: list[Exception] = []
        self._arrived = threading.Condition()

    def wait_for(self, n: int, timeout: float = 5.0) -> list[Record]:
        """Wait until n messages have come and return them all, or fail."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.messages) >= n, timeout)
            assert came, f"{len(self.messages)} of {n} messages in {timeout} s; errors: {self.errors}"
            return list(self.messages)

    def record(self, message: Record) -> None:
        """Keep an accepted email and wake the tests that wait for it."""
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()

    def _serve(self) -> None:
        asyncio.run(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore_lost_connections)
        self._listener.setblocking(False)
        admitted: dict[socket.socket, asyncio.Task[None]] = {}
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            if self.stopping.is_set():
                sock.close()
                return await _hang_up(admitted)
            self.connections += 1
            admitted[sock] = loop.create_task(self._admit(sock))

    async def _admit(self, sock: socket.socket) -> None:
        context = self.tls_context if self.implicit_tls else None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does it for what it accepts itself
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(lambda: _Session(self), sock, ssl=context)


async def _hang_up(sockets: Iterable[socket.socket]) -> None:
    # asyncio and aiosmtpd clean up by themselves when a client goes away, so make every client go away:
    # cancelled or aborted just before or in a TLS handshake, they leak the socket.
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    async with asyncio.timeout(TEARDOWN_SECONDS):
        while any(sock.fileno() != -1 for sock in sockets):  # noqa: ASYNC110 (a closed socket tells nobody)
            await asyncio.sleep(0.001)


def _ignore_lost_connections(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), OSError | TLSSetupException):
        loop.default_exception_handler(context)


class _Session(SMTP):
    """One connection to an SMTPServer."""

    def __init__(self, server: SMTPServer) -> None:
        super().__init__(
            _Hooks(server),
            hostname="mail.test",
            enable_SMTPUTF8=server.smtputf8,
            tls_context=None if server.implicit_tls else server.tls_context,
            require_starttls=server.require_starttls,
            auth_require_tls=not server.implicit_tls,  # aiosmtpd sees only the TLS of STARTTLS
            authenticator=_authenticator(server),
            loop=asyncio.get_running_loop(),
        )
        self._server = server

    def eof_received(self) -> bool:
        """Close the connection as soon as the client has; aiosmtpd alone doesn't before its greeting."""
        super().eof_received()
        return False

    async def push(self, status: AnyStr) -> None:
        """Send one reply, after the server's latency."""
        await asyncio.sleep(self._server.latency)
        await super().push(status)


def _authenticator(server: SMTPServer) -> Callable[[SMTP, Session, Envelope, str, Any], AuthResult]:
    def check(_: SMTP, __: Session, ___: Envelope, mechanism: str, login: LoginPassword) -> AuthResult:
        server.login_attempts += 1
        reply = _answer(server.auth_reply)
        right = server.auth is not None and login == tuple(part.encode() for part in server.auth)
        success = reply.startswith("2") if reply else right
        server.logins += success
        message = reply or (None if success else WRONG_LOGIN)
        return AuthResult(success=success, handled=False, message=message, auth_data=login)

    return check


class _Hooks:
    """What aiosmtpd calls at each command. No name may begin with auth_: it would become a mechanism."""

    def __init__(self, server: SMTPServer) -> None:
        self._server = server

    async def handle_EHLO(
        self, smtp: SMTP, session: Session, envelope: Envelope, hostname: str, replies: list[str]
    ) -> list[str]:
        session.host_name = hostname
        if self._server.auth is None:
            replies = [line for line in replies if not line.startswith("250-AUTH")]
        replies[1:1] = [f"250-{extension}" for extension in self._server.extensions]
        return ["\r\n".join(replies)]  # one push, so one latency

    async def handle_MAIL(
        self, smtp: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._server.auth is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        reply = _answer(self._server.mail_reply) or "250 2.1.0 OK"
        if reply.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return reply

    async def handle_RCPT(
        self, smtp: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = _answer(self._server.rcpt_reply) or "250 2.1.5 OK"
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, smtp: SMTP, session: Session, envelope: Envelope) -> str:
        reply = _answer(self._server.data_reply) or "250 2.0.0 OK"
        if reply.startswith("2"):
            self._server.record(_record(smtp, session, envelope))
        return reply

    async def handle_exception(self, error: Exception) -> str:
        if not isinstance(error, TLSSetupException):
            self._server.errors.append(error)
        return f"451 4.3.0 The test server failed: {error!r}"


def _record(smtp: SMTP, session: Session, envelope: Envelope) -> Record:
    content = envelope.original_content or b""
    assert smtp.transport is not None
    return Record(
        mail_from=envelope.mail_from or "",
        rcpt_tos=list(envelope.rcpt_tos),
        mail_options=list(envelope.mail_options),
        content=content,
        smtputf8=envelope.smtp_utf8,
        tls=smtp.transport.get_extra_info("sslcontext") is not None,
        user=session.auth_data.login.decode() if session.auth_data else None,
    )
