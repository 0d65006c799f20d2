"""smtplib's client with what it lacks.

TLS from the first byte on a line that can be cut, RSET where it is due, and sender and recipient in one packet. Decides
nothing about a mail; `smtp` does.
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
    """smtplib's client, which also lends out its TCP line and knows whether the server accepted the sender."""

    sender_answered = sender_accepted = False
    handed_over = False
    one_by_one = False  # whatever the server takes
    _recipient: str | None = None  # whose RCPT TO goes out with MAIL FROM, until its answer is read

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        hold: Callable[[socket.socket], None],
        ends_at: float,
    ) -> None:
        self._tls, self._hold, self._ends_at = tls, hold, ends_at
        # A fixed EHLO name: the default asks DNS for this host's, which no timeout covers.
        super().__init__(host, port, "[127.0.0.1]", current_app.config["EMAIL_TIMEOUT"])

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = self._connect_in_time(host, port, timeout)
        # A duplicate outlives the hand-over to a TLS socket, so the deadline also ends a dripping handshake.
        self._hold(plain.dup())
        return self._tls.wrap_socket(plain, server_hostname=host) if self._tls else plain

    def _connect_in_time(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect to the first address that answers, all of them together within the deadline."""
        failure: OSError = TimeoutError()
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            left = self._ends_at - time.monotonic()
            if left <= 0:
                break
            line = socket.socket(family, kind, protocol)
            line.settimeout(min(timeout, left))
            try:
                line.connect(address)
            except OSError as error:
                failure = error
                line.close()
            else:
                line.settimeout(timeout)
                return line
        raise failure

    def sendmail(self, from_addr: str, to_addrs: Any, msg: Any, *options: Any, **more: Any) -> Any:
        """Send one mail; where the server lets us (RFC 2920), sender and recipient go in one packet: a wait less.

        Where the sender is refused, the answer to the recipient is still to come: nobody may use the line again.
        """
        self.sender_answered = self.sender_accepted = self.handed_over = False
        plain = len(to_addrs) == 1 and to_addrs[0].isascii() and to_addrs[0].isprintable()
        together = plain and self.has_extn("pipelining") and not self.one_by_one
        self._recipient = to_addrs[0] if together else None
        return super().sendmail(from_addr, to_addrs, msg, *options, **more)

    def mail(self, sender: str, options: Any = ()) -> tuple[int, bytes]:
        """Send MAIL FROM, and note whether it was answered and accepted."""
        code, reply = super().mail(sender, options)
        self.sender_answered, self.sender_accepted = True, code == OK
        return code, reply

    def rcpt(self, recip: str, options: Any = ()) -> tuple[int, bytes]:
        """Send RCPT TO, or read the answer to the one that went along with MAIL FROM."""
        if self._recipient:
            self._recipient = None
            return self.getreply()
        return super().rcpt(recip, options)

    def send(self, s: Any) -> None:
        """Send; RCPT TO with MAIL FROM; and note when a mail is out with its final dot (RFC 5321 section 4.1.1.4)."""
        if self._recipient and isinstance(s, str) and s.startswith("mail "):
            s += f"rcpt TO:{smtplib.quoteaddr(self._recipient)}{smtplib.CRLF}"
        super().send(s)
        self.handed_over |= isinstance(s, bytes) and s.endswith(b"\r\n.\r\n")

    def data(self, msg: Any) -> tuple[int, bytes]:
        """Send the text; a server that refuses it at DATA gets the RSET that smtplib forgets there.

        Every 2yz in answer to the text is a yes (RFC 5321 section 4.2.1), where smtplib takes 250 alone.
        """
        try:
            code, reply = super().data(msg)
            return (OK if code // 100 == 2 else code), reply
        except smtplib.SMTPDataError:
            with suppress(smtplib.SMTPServerDisconnected):
                self.rset()
            raise
