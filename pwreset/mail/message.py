"""How a mail is put on the wire.

Decides encodings and line lengths: every part survives a 7-bit line, and no line exceeds the limit. It must not know
what a mail says, or to whom.
"""

from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, make_msgid, parseaddr
from functools import partial

import flask_mail

from pwreset.addresses import envelope
from pwreset.clock import utcnow

LONGEST_PLAIN_LINE = 900  # characters; RFC 5322 section 2.1.1 allows 998 octets
# Flask-Mail makes an id for every message, and for that asks DNS for this host's name, which no timeout covers.
flask_mail.make_msgid = partial(make_msgid, domain="localhost")  # type: ignore[attr-defined]


class Message(flask_mail.Message):
    """Flask-Mail's message, built so that every part survives a 7-bit line and no line exceeds the limit."""

    _text: bytes | None = None

    def as_bytes(self) -> bytes:
        """Return the mail as it goes out: made at the first call, after which a change to its parts has no effect."""
        self._text = self._text or self._message().as_bytes()
        return self._text

    def _message(self) -> EmailMessage:  # type: ignore[override]
        mail = EmailMessage(policy=policy.SMTPUTF8 if not self._is_ascii() else policy.SMTP)
        name, address = parseaddr(str(self.sender))
        mail["Subject"], mail["From"] = self.subject, formataddr((name, envelope(address)))
        mail["To"] = ", ".join(envelope(str(address)) for address in self.recipients)
        mail["Date"], mail["Message-ID"] = format_datetime(utcnow()), self.msgId
        for name, text in (self.extra_headers or {}).items():
            mail[name] = text
        mail.set_content(self.body, cte=_transfer_encoding(self.body or ""))
        if self.html:
            mail.add_alternative(self.html, subtype="html", cte=_transfer_encoding(self.html))
        return mail

    def _is_ascii(self) -> bool:
        return all(str(address).rpartition("@")[0].isascii() for address in self.recipients)


def _transfer_encoding(text: str) -> str:
    # The lines of bytes: of text, Python ends lines at form feeds too, which don't end one on the wire.
    plain = text.isascii() and all(len(line) <= LONGEST_PLAIN_LINE for line in text.encode().splitlines())
    return "7bit" if plain else "quoted-printable"
