"""smtplib's client with three additions: its connection can be aborted, it sends RSET after DATA fails, it pipelines.

Sender and recipient are sent in one packet if the server supports it (PIPELINING, RFC 2920), which saves a round trip.
DATA is not sent with them: a server that rejected the recipient could then deliver an empty email.
This module decides nothing about an email; `smtp` does.
"""

import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import current_app

OK = 250  # RFC 5321 section 4.2.1


class SMTPClient(smtplib.SMTP):
    """smtplib's client, which also passes on its TCP socket and records whether the server accepted the sender.

    Args:
        host: the mail server.
        port: its port.
        tls: the context for TLS from the first byte; None for a plain connection.
        keep_socket: called with a duplicate of the TCP socket, which can abort the connection.
        ends_at: the deadline for connecting, as `time.monotonic()`.

    Attributes:
        sender_answered: whether the server replied to MAIL FROM of the current email.
        sender_accepted: whether it accepted the sender.
        handed_over: whether the current email was sent completely.
        pipelining: whether sender and recipient may be sent together.
    """

    sender_answered = sender_accepted = False
    handed_over = False
    pipelining = True
    _recipient: str | None = None  # its RCPT TO is sent with MAIL FROM; set until the reply is read

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        keep_socket: Callable[[socket.socket], None],
        ends_at: float,
    ) -> None:
        self._tls = tls
        self._keep_socket = keep_socket
        self._ends_at = ends_at
        # A fixed EHLO name: the default queries DNS for this host's name, which no timeout covers.
        super().__init__(host, port, "[127.0.0.1]", current_app.config["EMAIL_TIMEOUT"])

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = self._connect_in_time(host, port, timeout)
        # A duplicate stays valid when TLS wraps the socket, so a slow handshake can be aborted too.
        self._keep_socket(plain.dup())
        return self._tls.wrap_socket(plain, server_hostname=host) if self._tls else plain

    def _connect_in_time(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect to the first address that answers; the deadline is for all of them together."""
        failure: OSError = TimeoutError()
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            left = self._ends_at - time.monotonic()
            if left <= 0:
                break
            connection = socket.socket(family, kind, protocol)
            connection.settimeout(min(timeout, left))
            try:
                connection.connect(address)
            except OSError as error:
                failure = error
                connection.close()
            else:
                connection.settimeout(timeout)
                return connection
        raise failure

    def sendmail(self, from_addr: str, to_addrs: Any, msg: Any, *options: Any, **more: Any) -> Any:
        """Send one email.

        After a rejected sender, the reply to the recipient is still to come: the connection must not be used again.
        """
        self.sender_answered = self.sender_accepted = self.handed_over = False
        plain = len(to_addrs) == 1 and to_addrs[0].isascii() and to_addrs[0].isprintable()
        together = plain and self.pipelining and self.has_extn("pipelining")
        self._recipient = to_addrs[0] if together else None
        return super().sendmail(from_addr, to_addrs, msg, *options, **more)

    def mail(self, sender: str, options: Any = ()) -> tuple[int, bytes]:
        """Send MAIL FROM, and record whether it was answered and accepted."""
        code, reply = super().mail(sender, options)
        self.sender_answered = True
        self.sender_accepted = code == OK
        return code, reply

    def rcpt(self, recip: str, options: Any = ()) -> tuple[int, bytes]:
        """Send RCPT TO, or read the reply to the one that was sent with MAIL FROM."""
        if self._recipient:
            self._recipient = None
            return self.getreply()
        return super().rcpt(recip, options)

    def send(self, s: Any) -> None:
        """Send text, and RCPT TO with MAIL FROM; record the final dot of an email (RFC 5321 section 4.1.1.4)."""
        if self._recipient and isinstance(s, str) and s.startswith("mail "):
            s += f"rcpt TO:{smtplib.quoteaddr(self._recipient)}{smtplib.CRLF}"
        super().send(s)
        self.handed_over |= isinstance(s, bytes) and s.endswith(b"\r\n.\r\n")

    def data(self, msg: Any) -> tuple[int, bytes]:
        """Send the text of the email. If the server rejects DATA, send RSET, which smtplib does not do here.

        Every 2yz reply accepts the text (RFC 5321 section 4.2.1), but smtplib expects 250.
        """
        try:
            code, reply = super().data(msg)
            return (OK if code // 100 == 2 else code), reply
        except smtplib.SMTPDataError:
            with suppress(smtplib.SMTPServerDisconnected):
                self.rset()
            raise
