"""Sends emails to a mail server: with verified certificates, in limited time, over one connection for a batch.

Decides whether a failure concerns the server (nothing was handed over, and all emails wait) or one email. A refused
sender concerns the server, because every other email has the same sender, unless this email has its own sender or needs
SMTPUTF8. Flask-Mail checks no certificate, has no timeout and leaks its socket when a login fails, so its `Connection`
is replaced; its settings, message and signal stay. The server's own text never leaves this package, because it may
contain an address.
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
from pwreset.mail.errors import Deferred, MailError, Refused, ServerUnavailable, code_of, explain, is_sending_limit
from pwreset.mail.mailbox import MailboxConnection, announce

NO_PIPELINING = 600.0  # seconds without pipelining after a server did not answer it
PERMANENT = 500  # RFC 5321 section 4.2.1
TOO_LARGE = 552  # RFC 1870 section 6.1: a reply to MAIL FROM that is about this email


class VerifyingConnection(Connection):
    """Flask-Mail's connection, opened for the first email and kept for the next ones."""

    host: SMTPClient | None
    _socket: socket.socket | None = None
    _is_late = False
    _ends_at = float("inf")

    def __enter__(self) -> Self:
        self.num_emails = 0
        return self

    def __exit__(self, *_: object) -> None:
        if self.host is not None:
            with self.deadline(), suppress(smtplib.SMTPException, OSError):
                # The emails are accepted by now: a failed QUIT must not make them look unsent.
                self.host.quit()
        self.close()

    def send(self, message: Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Hand one email over, within EMAIL_DEADLINE seconds.

        Raises:
            ServerUnavailable: nothing was handed over, and the server would not accept another email either.
            Deferred: this email failed for now.
            Refused: this email failed for good.
        """
        reused = self.host is not None
        with self.deadline():
            try:
                self._transmit(message, envelope_from)
            except ServerUnavailable:
                if not reused:
                    raise
                self._transmit(message, envelope_from)  # the server may have closed an idle connection
        announce(message)
        self.num_emails += 1

    def configure_host(self) -> SMTPClient:
        """Connect, switch to verified TLS if it is set, and log in; any failure closes the socket."""
        host = self.connect()
        try:
            self.secure(host)
            host.ehlo_or_helo_if_needed()  # here, so that a failure concerns the server
            self.login(host)
        except BaseException:
            host.close()
            raise
        return host

    def connect(self) -> SMTPClient:
        """Open the connection; with EMAIL_USE_SSL, TLS from the first byte."""
        tls = ssl.create_default_context() if self.mail.use_ssl else None
        return SMTPClient(self.mail.server, int(self.mail.port or 0), tls, self._keep_socket, self._ends_at)

    def secure(self, host: SMTPClient) -> None:
        """Switch to TLS; raises if the server offers none, or its certificate is not the host's."""
        if self.mail.use_tls:
            host.starttls(context=ssl.create_default_context())

    def login(self, host: SMTPClient) -> None:
        """Log in, if there is an account."""
        if self.mail.username and self.mail.password:
            host.login(self.mail.username, self.mail.password)

    def close(self) -> None:
        """Close the connection without QUIT."""
        if self.host is not None:
            self.host.close()
        if self._socket is not None:
            self._socket.close()
        self.host = self._socket = None

    def explain(self, error: Exception) -> str:
        """Return what went wrong in plain words; an aborted connection looks as if the server had closed it."""
        deadline = f"{current_app.config['EMAIL_DEADLINE']:g} s"
        return f"the mail server took longer than {deadline}" if self._is_late else explain(error)

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Limit the block to EMAIL_DEADLINE seconds by aborting the connection (a DNS lookup can't be aborted)."""
        self._is_late = False
        seconds = current_app.config["EMAIL_DEADLINE"]
        self._ends_at = time.monotonic() + seconds
        timer = Timer(seconds, self._abort)
        timer.daemon = True
        with suppress(RuntimeError):  # Python starts no thread while it shuts down; the timeouts still apply
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _keep_socket(self, connection: socket.socket) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = connection
        if self._is_late:
            self._abort()

    def _abort(self) -> None:
        self._is_late = True
        with suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _transmit(self, message: Message, envelope_from: str | tuple[str, str] | None) -> None:
        sender = envelope(parseaddr(str(envelope_from or message.sender))[1])
        recipients = [envelope(str(address)) for address in message.send_to]
        # An email with its own sender, or with SMTPUTF8: if MAIL FROM is refused, other emails may still be accepted.
        is_special = message.sender != self.mail.default_sender or not "".join(recipients).isascii()
        reused = self.host is not None
        self.host = self.host or self._open()
        state = current_app.extensions["pwreset"]
        self.host.pipelining = time.monotonic() >= state.no_pipelining_until
        try:
            if "".join([sender, *recipients]).isascii():
                self.host.sendmail(sender, recipients, message.as_bytes())
            else:  # asks for SMTPUTF8, and encodes the headers for it
                self.host.send_message(message._message(), sender, recipients)  # noqa: SLF001
        except (smtplib.SMTPException, OSError) as error:
            if not self.host.sender_answered:  # without pipelining, the next failure shows which command it was
                state.no_pipelining_until = time.monotonic() + NO_PIPELINING
            failure = self._failure(error, is_special=is_special, reused=reused)
            self._close_unless_refused(error)
            raise failure from None  # the original may repeat an address

    def _open(self) -> SMTPClient:
        try:
            return self.configure_host()
        except Exception as error:  # noqa: BLE001 (also what smtplib raises for a name or login it can't encode)
            failure = ServerUnavailable(self.explain(error))
            self.close()
            raise failure from None  # the original may contain the password

    def _failure(self, error: Exception, *, is_special: bool, reused: bool) -> MailError:
        reason = self.explain(error)
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return Refused("the mail server does not support international addresses (SMTPUTF8)")
        about_this_email = code_of(error) == TOO_LARGE or is_special
        if self.host is None or not (self.host.sender_accepted or about_this_email):
            return ServerUnavailable(reason)
        if reused and not self.host.sender_answered:  # the server closed an idle connection
            return ServerUnavailable(reason)
        if code_of(error) >= PERMANENT and not is_sending_limit(error):
            return Refused(reason)
        return Deferred(reason, maybe_sent=self.host.handed_over and not code_of(error))

    def _close_unless_refused(self, error: Exception) -> None:
        # After a refusal, smtplib has sent RSET, and the connection can be used for the next email. After an invalid
        # reply it can't: the server's next reply may belong to an earlier command.
        refused = isinstance(error, (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)) and code_of(error)
        if not refused or self._is_late:
            self.close()


class VerifyingMail(Mail):
    """Flask-Mail with our connections: to the mail server or, if none is configured, to the local mailbox."""

    def connect(self) -> Connection:
        """Return a connection for a batch of emails; use it in a `with` statement."""
        state = current_app.extensions["mail"]
        if state.server is None:
            return MailboxConnection(state)
        # Under TESTING, Flask-Mail's own connection sends nothing (MAIL_SUPPRESS_SEND), but still sends its signal.
        return Connection(state) if state.suppress else VerifyingConnection(state)
