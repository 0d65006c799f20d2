"""How a written mail is handed to a mail server: certificates verified, bounded in time, one connection for a batch.

Decides whose failure a failure is: the server's (nothing was handed over, every mail waits), or the one mail's.
Flask-Mail checks no certificate, has no timeout and loses its socket when a login fails, so its `Connection` is
replaced and only its settings, message and signal are kept. A server's own words never leave this module: they may
repeat an address.
"""

import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parseaddr
from threading import Timer
from typing import Self

from flask import current_app
from flask_mail import Connection, Mail, Message

from pwreset.addresses import envelope
from pwreset.mail.client import SMTPClient
from pwreset.mail.errors import Deferred, MailError, Refused, ServerUnavailable, code_of, explain, is_limit
from pwreset.mail.mailbox import MailboxConnection, announce

ONE_BY_ONE = 600.0  # seconds without PIPELINING after a server fell silent over it
PERMANENT = 500  # RFC 5321 section 4.2.1
TOO_LARGE = 552  # RFC 1870 section 6.1: said to MAIL FROM, but of this mail


class VerifyingConnection(Connection):
    """Flask-Mail's connection, opened at the first mail and kept for the next ones."""

    host: SMTPClient | None
    _line: socket.socket | None = None
    _late = False
    _ends_at = float("inf")

    def __enter__(self) -> Self:
        self.num_emails = 0
        return self

    def __exit__(self, *_: object) -> None:
        if self.host is not None:
            with self.deadline(), suppress(smtplib.SMTPException, OSError):
                # The mail is accepted by now: a failing QUIT must not make it look unsent.
                self.host.quit()
        self.close()

    def send(self, message: Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Hand one mail over, within EMAIL_DEADLINE seconds.

        Raises:
            ServerUnavailable: nothing was handed over, and no other mail would be.
            Deferred, Refused: this mail failed, for now or for good.
        """
        reused = self.host is not None
        with self.deadline():
            try:
                self._transmit(message, envelope_from)
            except ServerUnavailable:
                if not reused:
                    raise
                self._transmit(message, envelope_from)  # the server may just have closed an idle connection
        announce(message)
        self.num_emails += 1

    def configure_host(self) -> SMTPClient:
        """Connect, switch to verified TLS where it was asked for, and log in; the socket is closed on any failure."""
        host = self.connect()
        try:
            self.secure(host)
            host.ehlo_or_helo_if_needed()  # not as a part of some mail, whose failure it would be
            self.login(host)
        except BaseException:
            host.close()
            raise
        return host

    def connect(self) -> SMTPClient:
        """Open the line; with EMAIL_USE_SSL, TLS from the first byte."""
        tls = ssl.create_default_context() if self.mail.use_ssl else None
        return SMTPClient(self.mail.server, int(self.mail.port or 0), tls, self._hold, self._ends_at)

    def secure(self, host: SMTPClient) -> None:
        """Switch to TLS; raises where the server offers none or its certificate is not the host's."""
        if self.mail.use_tls:
            host.starttls(context=ssl.create_default_context())

    def login(self, host: SMTPClient) -> None:
        """Log in, if there is an account to log in with."""
        if self.mail.username and self.mail.password:
            host.login(self.mail.username, self.mail.password)

    def close(self) -> None:
        """Drop the connection without a word."""
        if self.host is not None:
            self.host.close()
        if self._line is not None:
            self._line.close()
        self.host = self._line = None

    def explain(self, error: Exception) -> str:
        """Return what went wrong, in plain words; a line cut at the deadline looks as if the server had closed it."""
        deadline = f"{current_app.config['EMAIL_DEADLINE']:g} s"
        return f"the mail server took longer than {deadline}" if self._late else explain(error)

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Bound everything inside to EMAIL_DEADLINE seconds by cutting the TCP line (not the DNS lookup)."""
        self._late = False
        seconds = current_app.config["EMAIL_DEADLINE"]
        self._ends_at = time.monotonic() + seconds
        timer = Timer(seconds, self._cut)
        timer.daemon = True
        with suppress(RuntimeError):  # Python starts no thread any more while it ends; the timeouts still bound the end
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hold(self, line: socket.socket) -> None:
        if self._line is not None:
            self._line.close()
        self._line = line
        if self._late:
            self._cut()

    def _cut(self) -> None:
        self._late = True
        with suppress(OSError, AttributeError):
            self._line.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _transmit(self, message: Message, envelope_from: str | tuple[str, str] | None) -> None:
        sender = envelope(parseaddr(str(envelope_from or message.sender))[1])
        recipients = [envelope(str(address)) for address in message.send_to]
        # MAIL FROM, or its SMTPUTF8, is not what every other mail begins with, so a refusal of it says nothing of them.
        peculiar = message.sender != self.mail.default_sender or not "".join(recipients).isascii()
        reused = self.host is not None
        self.host = self.host or self._open()
        self.host.one_by_one = time.monotonic() < current_app.extensions["pwreset"].no_pipelining_until
        try:
            if "".join([sender, *recipients]).isascii():
                self.host.sendmail(sender, recipients, message.as_bytes())
            else:  # asks for SMTPUTF8, and writes the headers with it
                self.host.send_message(message._message(), sender, recipients)  # noqa: SLF001
        except (smtplib.SMTPException, OSError) as error:
            if not self.host.sender_answered:  # at which of several commands it failed shows when they go one by one
                current_app.extensions["pwreset"].no_pipelining_until = time.monotonic() + ONE_BY_ONE
            failure = self._judge(error, peculiar=peculiar, reused=reused)
            self._keep_or_close(error)
            raise failure from None  # the original may repeat an address

    def _open(self) -> SMTPClient:
        try:
            return self.configure_host()
        except Exception as error:  # noqa: BLE001 (also what smtplib raises for a name or a login it can't encode)
            failure = ServerUnavailable(self.explain(error))
            self.close()
            raise failure from None  # the original may hold the password

    def _judge(self, error: Exception, *, peculiar: bool, reused: bool) -> MailError:
        why = self.explain(error)
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return Refused("the mail server does not take international addresses (SMTPUTF8)")
        of_this_mail = code_of(error) == TOO_LARGE or peculiar
        if self.host is None or not (self.host.sender_accepted or of_this_mail):
            return ServerUnavailable(why)
        if reused and not self.host.sender_answered:  # an idle line that was closed is nobody's failure
            return ServerUnavailable(why)
        if code_of(error) >= PERMANENT and not is_limit(error):
            return Refused(why)
        return Deferred(why, maybe_sent=self.host.handed_over and not code_of(error))

    def _keep_or_close(self, error: Exception) -> None:
        # After a plain refusal smtplib has sent RSET and the line is good for the next mail. After an answer that made
        # no sense it is not: what the server says next may be the answer to something else.
        refused = isinstance(error, (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)) and code_of(error)
        if not refused or self._late:
            self.close()


class VerifyingMail(Mail):
    """Flask-Mail with our connections: to the mail server, or into the local mailbox where there is none."""

    def connect(self) -> Connection:
        """Return a connection for one batch of mails; use it in a `with` statement."""
        state = current_app.extensions["mail"]
        if state.server is None:
            return MailboxConnection(state)
        # Flask-Mail's own sends nothing under TESTING (MAIL_SUPPRESS_SEND), and reports what it would have sent.
        return Connection(state) if state.suppress else VerifyingConnection(state)
