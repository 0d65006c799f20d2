"""A real SMTP server on loopback that misbehaves by script.

It decides what the server answers; it asserts nothing about the application and never imports it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.support.smtp import LoopbackServer


@dataclass(frozen=True)
class Step:
    """What a ScriptedServer does at one stage: send a reply (None: the usual one), and then go on or not.

    "abort" closes the connection in the middle of the reply's last line.
    """

    reply: str | None = None
    interval: float = 0.0
    endless: bool = False
    then: Literal["go on", "close", "silent", "reset", "abort"] = "go on"


USUAL = Step()


SILENT = Step("", then="silent")


CLOSE = Step("", then="close")


RST = Step("", then="reset")


@dataclass
class Email:
    """One email that came to a ScriptedServer with its final dot.

    Args:
        content: as it came, without the dots that SMTP adds.
        kept: the server did not reject it, whether or not the client received the reply.
        acknowledged: the server sent 250 to the client.
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


class ScriptedServer(LoopbackServer):
    """An SMTP server that does at each stage what a table says, and the usual thing elsewhere.

    The stages are the commands (EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, QUIT, ...) and HANDSHAKE (before
    TLS), CONNECT (the greeting), BODY (after the first line of an email), DOT (after its last, when the email is
    kept). A behaviour is a reply, a Step, or a list of them, one for each time the stage is reached, over
    all connections; the last one repeats. A reply may hold several lines; they leave in one packet. A 421
    closes the connection. Every login is accepted.

    `received` holds the content of every email that came with its final dot, `emails` also what became of it,
    `fragments` what came of emails that were cut before it; `in_clear` the stages that were reached outside TLS.
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
        self.emails: list[Email] = []
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
            conversation.abort()


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

    def abort(self) -> None:
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
        mail = Email(content, kept=not (step.reply or "").startswith(("4", "5")))
        self.server.received.append(content)
        self.server.emails.append(mail)
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
            line_end = "" if step.then == "abort" else "\r\n"
            self._send(f"{reply}{line_end}".encode(), step.interval)
        if step.then == "silent":
            self._ignore()
        if step.then == "reset":  # without lingering, closing sends RST
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if step.then in {"close", "reset", "abort"} or reply.startswith("421"):
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
        with self._lock:  # only wraps; the handshake may block, and abort() must reach it
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
        """Send nothing more until the client leaves or the server stops."""
        while self.sock.recv(65536):
            pass
        raise _HangUp
