"""Real SMTP servers on loopback for the tests: a well-behaved one and one that misbehaves by script.

It decides what a server says and does on the wire; it asserts nothing about the app and never imports it.
aiosmtpd's Controller is not used: it fails with a port chosen by the kernel (it connects to port 0), and that
connection of its own would be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import email
import email.policy
import itertools
import logging
import socket
import ssl
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, AnyStr, Literal, Self

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session, TLSSetupException

HOST = "127.0.0.1"
NAMES = ("localhost", HOST)
TEARDOWN_SECONDS = 5.0
WRONG_LOGIN = "535 5.7.8 Username and Password not accepted"

# aiosmtpd logs every line of every mail, links included. In the tests' own process that would look as if
# the app had logged them. (propagate = False is not enough: pytest's caplog listens there too.)
logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)

Reply = str | Callable[[], str | None]


def in_turn(*replies: str | None) -> Callable[[], str | None]:
    """Give each of these replies once, in order, and then None, which means the usual answer."""
    remaining = iter(replies)
    return lambda: next(remaining, None)


def _answer(override: Reply | None) -> str | None:
    return override() if callable(override) else override


class Authority:
    """A certificate authority, and server contexts with certificates that are right or wrong."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def ca_pem_path(self, tmp: Path) -> Path:
        """Write this authority's certificate into the folder and return the file's path."""
        path = tmp / "ca.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path

    def client_context(self) -> ssl.SSLContext:
        """A client context that trusts this authority and nothing else."""
        return ssl.create_default_context(cadata=self._ca.cert_pem.bytes().decode("ascii"))

    @cached_property
    def good(self) -> ssl.SSLContext:
        """A valid certificate for localhost and 127.0.0.1."""
        return _server_context(self._ca.issue_cert(*NAMES))

    @cached_property
    def wrong_host(self) -> ssl.SSLContext:
        """A trusted certificate for another host."""
        return _server_context(self._ca.issue_cert("mail.example.net"))

    @cached_property
    def expired(self) -> ssl.SSLContext:
        """A trusted certificate for the right names that ended long ago."""
        first, last = dt.datetime(2001, 1, 1, tzinfo=dt.UTC), dt.datetime(2002, 1, 1, tzinfo=dt.UTC)
        return _server_context(self._ca.issue_cert(*NAMES, not_before=first, not_after=last))

    @cached_property
    def self_signed(self) -> ssl.SSLContext:
        """A certificate that vouches for itself and that nobody trusts."""
        stranger = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with trustme.Blob(stranger.private_key_pem.bytes() + stranger.cert_pem.bytes()).tempfile() as path:
            context.load_cert_chain(path)
        return context

    @cached_property
    def untrusted(self) -> ssl.SSLContext:
        """A certificate for the right names from an authority that nobody trusts."""
        return _server_context(trustme.CA().issue_cert(*NAMES))


def _server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


class _Server(ABC):
    """A listening socket on loopback and the thread that serves it, started and stopped as a context manager."""

    host = HOST

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        self._listener = _bind(0)
        self.port = self._listener.getsockname()[1]
        self.come_back()
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

    def come_back(self) -> None:
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
    """One mail as the server accepted it."""

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


class SMTPServer(_Server):
    """A well-behaved SMTP server that keeps the mail it accepts.

    With `tls_context` it offers STARTTLS, or with `implicit_tls` too it speaks TLS from the first byte.
    With `auth` it refuses mail before a login, and offers the login only inside TLS.
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
        """Keep an accepted mail and wake whoever waits for it."""
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


@dataclass(frozen=True)
class Step:
    """What a ScriptedServer does at one stage: send a reply (None: the usual one), and then go on or not.

    "cut" closes the connection in the middle of the reply's last line.
    """

    reply: str | None = None
    interval: float = 0.0
    endless: bool = False
    then: Literal["go on", "close", "silent", "reset", "cut"] = "go on"


USUAL = Step()
SILENT = Step("", then="silent")
CLOSE = Step("", then="close")
RST = Step("", then="reset")


@dataclass
class Mail:
    """One mail that came to a ScriptedServer with its final dot.

    Args:
        content: as it came, without the dots that SMTP adds.
        kept: it was not refused (whether or not the client was told).
        acknowledged: the client was told 250.
        at: when it came, on the wall clock in seconds.
    """

    content: bytes
    kept: bool
    acknowledged: bool = False
    at: float = field(default_factory=time.time)


def drip(interval: float, reply: str | None = None, *, endless: bool = False) -> Step:
    """Send the reply one byte at a time; `endless` sends continuation lines for ever instead."""
    return Step(reply, interval, endless)


Behaviour = str | Step | Sequence[str | Step]

NOT_COMMANDS = frozenset({"HANDSHAKE", "CONNECT", "BODY", "DOT"})
USUAL_REPLIES = {
    "HANDSHAKE": "",
    "CONNECT": "220 scripted.test ESMTP",
    "HELO": "250 scripted.test",
    "STARTTLS": "220 2.0.0 Ready to start TLS",
    "AUTH": "235 2.7.0 Accepted",
    "MAIL": "250 2.1.0 OK",
    "RCPT": "250 2.1.5 OK",
    "DATA": "354 Go ahead",
    "BODY": "",
    "DOT": "250 2.0.0 OK",
    "RSET": "250 2.0.0 OK",
    "NOOP": "250 2.0.0 OK",
    "QUIT": "221 2.0.0 Bye",
}
STAGES = NOT_COMMANDS | set(USUAL_REPLIES) | {"EHLO"}


class ScriptedServer(_Server):
    """An SMTP server that does at each stage what a table says, and the usual thing elsewhere.

    The stages are the commands (EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, QUIT, ...) and HANDSHAKE (before
    TLS), CONNECT (the greeting), BODY (after the first line of a mail), DOT (after its last, when the mail is
    kept). A behaviour is a reply, a Step, or a list of them, one for each time the stage is reached, over
    all connections; the last one repeats. A reply may hold several lines; they leave in one packet. A 421
    closes the connection. Every login is accepted.

    `received` holds the content of every mail that came with its final dot, `mails` also what became of it,
    `fragments` what came of mails that were cut before it; `in_clear` the stages that were reached outside TLS.
    """

    def __init__(
        self,
        replies: Mapping[str, Behaviour] | None = None,
        *,
        tls_context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
    ) -> None:
        super().__init__()
        if implicit_tls and tls_context is None:
            raise ValueError("implicit_tls needs a tls_context")
        self.tls_context, self.implicit_tls = tls_context, implicit_tls
        self.stages: list[str] = []
        self.in_clear: list[str] = []
        self.received: list[bytes] = []
        self.mails: list[Mail] = []
        self.fragments: list[bytes] = []
        self._reached = threading.Condition()
        self.behave(replies)

    def behave(self, replies: Mapping[str, Behaviour] | None = None) -> None:
        """Put another table in place of the present one, from the next stage on; without one all is usual again."""
        if unknown := set(replies or {}) - STAGES:
            message = f"no such stage: {sorted(unknown)}"
            raise ValueError(message)
        script = {stage: _steps(behaviour) for stage, behaviour in (replies or {}).items()}
        with self._reached:
            self._script = script

    @property
    def commands(self) -> list[str]:
        """The verbs of the commands that came, in order, over all connections."""
        return [stage for stage in self.stages if stage not in NOT_COMMANDS]

    def wait_for_stage(self, stage: str, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until a stage has been reached so many times, or fail."""
        with self._reached:
            came = self._reached.wait_for(lambda: self.stages.count(stage) >= count, timeout)
            assert came, f"{stage} not reached {count} times in {timeout} s: {self.stages}"

    def enter(self, stage: str, *, secure: bool) -> Step:
        """Note that a stage is reached, in TLS or in clear, and say what to do there."""
        with self._reached:
            self.stages.append(stage)
            if not secure:
                self.in_clear.append(stage)
            self._reached.notify_all()
            return next(self._script[stage]) if stage in self._script else USUAL

    def _serve(self) -> None:
        conversations: list[_Conversation] = []
        while True:
            sock, _ = self._listener.accept()
            if self.stopping.is_set():
                sock.close()
                break
            self.connections += 1
            conversations.append(_Conversation(self, sock))
        for conversation in conversations:
            conversation.cut()


def _steps(behaviour: Behaviour) -> Iterator[Step]:
    listed = [behaviour] if isinstance(behaviour, str | Step) else behaviour
    steps = [Step(item) if isinstance(item, str) else item for item in listed]
    return itertools.chain(steps, itertools.repeat(steps[-1]))


class _HangUp(Exception):
    """The conversation is over."""


class _Conversation:
    """One connection to a ScriptedServer, in a thread of its own."""

    def __init__(self, server: ScriptedServer, sock: socket.socket) -> None:
        self.server, self.sock = server, sock
        self._thread = threading.Thread(target=self._run, name="Conversation", daemon=True)
        self._lock = threading.Lock()
        self._unread = b""
        self._thread.start()

    def cut(self) -> None:
        """End the connection from another thread, whatever it waits for, and wait for its thread."""
        # Not SSLSocket.shutdown: it drops the TLS state under the thread that reads.
        with self._lock, contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        try:
            with contextlib.suppress(_HangUp, OSError):
                self._talk()
        finally:
            with self._lock:
                self.sock.close()

    def _talk(self) -> None:
        if self.server.implicit_tls:
            self._secure()
        self._step("CONNECT")
        while True:
            self._command(self._line())

    def _command(self, line: bytes) -> None:
        verb = line.decode("ascii", "replace").strip().partition(" ")[0].upper()
        code = self._step(verb)
        if verb == "STARTTLS" and code == "220":
            self._secure()
        elif verb == "DATA" and code == "354":
            self._body()
        elif verb == "QUIT":
            raise _HangUp

    def _body(self) -> None:
        content = self._content()
        step = self._enter("DOT")
        mail = Mail(content, kept=not (step.reply or "").startswith(("4", "5")))
        self.server.received.append(content)
        self.server.mails.append(mail)
        code = self._do("DOT", step)
        mail.acknowledged = code.startswith("2")

    def _content(self) -> bytes:
        lines: list[bytes] = []
        try:
            while (line := self._line()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
                if len(lines) == 1:
                    self._step("BODY")
        except (_HangUp, OSError):
            self.server.fragments.append(b"".join(lines) + self._unread)
            raise
        return b"".join(lines)

    def _enter(self, stage: str) -> Step:
        return self.server.enter(stage, secure=isinstance(self.sock, ssl.SSLSocket))

    def _step(self, stage: str) -> str:
        return self._do(stage, self._enter(stage))

    def _do(self, stage: str, step: Step) -> str:
        reply = self._usual(stage) if step.reply is None else step.reply
        if step.endless:
            self._drip(itertools.cycle(f"{reply[:3]}-wait\r\n".encode()), step.interval)
        elif reply:
            line_end = "" if step.then == "cut" else "\r\n"
            self._send(f"{reply}{line_end}".encode(), step.interval)
        if step.then == "silent":
            self._ignore()
        if step.then == "reset":  # without lingering, closing sends RST
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if step.then in {"close", "reset", "cut"} or reply.startswith("421"):
            raise _HangUp
        return reply[:3]

    def _usual(self, stage: str) -> str:
        secure = isinstance(self.sock, ssl.SSLSocket)
        offered = self.server.tls_context is not None and not secure
        if stage == "EHLO":
            last = "STARTTLS" if offered else "AUTH PLAIN"
            return f"250-scripted.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 {last}"
        if stage == "STARTTLS" and not offered:
            return "502 5.5.1 TLS is not offered"
        return USUAL_REPLIES.get(stage, "500 5.5.2 Unknown command")

    def _secure(self) -> None:
        self._step("HANDSHAKE")
        self._unread = b""
        assert self.server.tls_context is not None
        with self._lock:  # only wraps; the handshake may block, and cut() must reach it
            self.sock = self.server.tls_context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock.do_handshake()

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            if not (more := self.sock.recv(65536)):
                raise _HangUp
            self._unread += more
        line, newline, self._unread = self._unread.partition(b"\n")
        return line + newline

    def _send(self, data: bytes, interval: float) -> None:
        if interval:
            self._drip(iter(data), interval)
        else:
            self.sock.sendall(data)

    def _drip(self, data: Iterator[int], interval: float) -> None:
        for byte in data:
            self.sock.sendall(bytes([byte]))
            if self.server.stopping.wait(interval):
                raise _HangUp

    def _ignore(self) -> None:
        """Say nothing more until the client gives up or the server stops."""
        while self.sock.recv(65536):
            pass
        raise _HangUp
