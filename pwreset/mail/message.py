"""Encodes an email, so that every part can be sent over a 7-bit connection, and no line exceeds the limit.

This module must not know the text or the recipient of an email.
"""

from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, make_msgid, parseaddr
from functools import partial

import flask_mail

from pwreset.addresses import envelope
from pwreset.clock import utcnow

LONGEST_PLAIN_LINE = 900  # characters; RFC 5322 section 2.1.1 allows 998 octets
# Flask-Mail gives every message an id, for which it queries DNS for this host's name, which no timeout covers.
flask_mail.make_msgid = partial(make_msgid, domain="localhost")  # type: ignore[attr-defined]


class Message(flask_mail.Message):
    """Flask-Mail's message with our encoding."""

    _text: bytes | None = None

    def as_bytes(self) -> bytes:
        """Return the email as it is sent. The first call encodes it; later changes to its parts have no effect."""
        self._text = self._text or self._message().as_bytes()
        return self._text

    def _message(self) -> EmailMessage:  # type: ignore[override]
        international = any(not str(address).rpartition("@")[0].isascii() for address in self.recipients)
        email = EmailMessage(policy=policy.SMTPUTF8 if international else policy.SMTP)
        name, address = parseaddr(str(self.sender))
        email["Subject"] = self.subject
        email["From"] = formataddr((name, envelope(address)))
        email["To"] = ", ".join(envelope(str(address)) for address in self.recipients)
        email["Date"] = format_datetime(utcnow())
        email["Message-ID"] = self.msgId
        for name, text in (self.extra_headers or {}).items():
            email[name] = text
        email.set_content(self.body, cte=_transfer_encoding(self.body or ""))
        if self.html:
            email.add_alternative(self.html, subtype="html", cte=_transfer_encoding(self.html))
        return email


def _transfer_encoding(text: str) -> str:
    # Lines of bytes: in text, Python also ends a line at a form feed, which SMTP does not.
    plain = text.isascii() and all(len(line) <= LONGEST_PLAIN_LINE for line in text.encode().splitlines())
    return "7bit" if plain else "quoted-printable"
