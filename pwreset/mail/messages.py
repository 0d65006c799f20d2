"""How a row of the outbox becomes a mail: whom it goes to, which texts, and the link, minted here and nowhere else.

Decides the recipient: always the address stored with the account, never the one typed. The token lives in the mail
returned and in no other place; whoever sends it must not log or store it.
"""

from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, make_msgid, parseaddr
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import flask_mail
from flask import current_app

from config import LOCAL_URL
from pwreset import accounts
from pwreset.addresses import envelope
from pwreset.client import browser
from pwreset.clock import utcnow
from pwreset.mail.lifetime import in_words
from pwreset.models import OutboxMessage, User
from pwreset.password_reset.tokens import encode_uid, token_generator

LONGEST_PLAIN_LINE = 900  # characters; RFC 5322 section 2.1.1 allows 998 octets
# Flask-Mail makes an id for every message, and for that asks DNS for this host's name, which no timeout covers.
flask_mail.make_msgid = partial(make_msgid, domain="localhost")  # type: ignore[attr-defined]
KINDS = ("password_reset", "register", "password_changed")
PURPOSES = {"password_reset": "reset", "invite": "invite"}  # by the name of the texts


@dataclass(frozen=True)
class Letter:
    """What to write: the folder of its texts, the address it goes to, and the account, if it has one."""

    name: str
    recipient: str
    user: User | None


@dataclass(frozen=True)
class Asked:
    """When, from where and with what the mail was asked for, as the texts show it."""

    at: datetime
    client_address: str | None
    browser: str | None


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


def letter_for(row: OutboxMessage) -> Letter | None:
    """Return what to write for a row, or None where nobody is to be mailed; a registration gets its account here.

    Raises:
        LookupError: for a kind that this version does not know.
    """
    if row.kind not in KINDS:
        raise LookupError(row.kind)
    user = accounts.find(row.address)
    if row.kind == "password_changed":
        return Letter(row.kind, row.address, user)
    if row.kind == "register":
        user = user or accounts.create(row.address) or accounts.find(row.address)
    if user is None or not user.is_active:
        return None
    if row.kind == "password_reset":
        return Letter(row.kind, user.email, user)
    return Letter("account_exists" if user.has_usable_password() else "invite", user.email, user)


def write(row: OutboxMessage, letter: Letter) -> Message:
    """Return the mail, with its link.

    Raises:
        Exception: whatever a template of the team's own raises; the row can't be mailed then.
    """
    context = _context(row, letter)
    options, folder = row.options, f"mail/{letter.name}"
    html = options.get("html_email_template_name", f"{folder}/body.html")
    message = Message(
        subject=" ".join(_render(options.get("subject_template_name") or f"{folder}/subject.txt", context).split()),
        recipients=[letter.recipient],
        body=_render(options.get("email_template_name") or f"{folder}/body.txt", context),
        html=_render(html, context) if html else None,
        sender=options.get("from_email") or sender(),
        # RFC 3834 section 5: nobody's holiday notice is to answer this.
        extra_headers={"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"},
    )
    # From the row and not from this attempt, so that a second copy can be recognised.
    message.msgId = f"<{row.message_id}@{_sender_domain()}>"
    if message.has_bad_headers():
        raise flask_mail.BadHeaderError
    message.as_bytes()  # what can't be put on the wire shows here, where it is this row's failure
    return message


def trial_message(recipient: str) -> Message:
    """Return the mail of `flask mail check --to`."""
    site = current_app.config["SITE_NAME"]
    text = f"{site} can send mail.\n\nSomebody who runs it asked for this test with `flask mail check`.\n"
    message = Message(subject=f"Test mail from {site}", recipients=[recipient], body=text, sender=sender())
    message.msgId = make_msgid(domain=_sender_domain())
    return message


def sender() -> str:
    """Return the address that mail comes from unless a row names its own."""
    return current_app.config["EMAIL_FROM"] or "noreply@localhost"


def _sender_domain() -> str:
    return envelope(parseaddr(sender())[1]).rpartition("@")[2]


def origin_of(row: OutboxMessage) -> str:
    """Return what links start with: PUBLIC_URL always, where it is set; else the loopback origin of the form."""
    return current_app.config["PUBLIC_URL"] or row.origin or LOCAL_URL


def link_to_confirm(user: User, purpose: str, origin: str) -> str:
    """Return a link that opens the confirm page: the one place that makes tokens.

    Args:
        user: as it is now.
        purpose: `reset` or `invite`.
        origin: scheme, host and port that the link starts with.
    """
    token = token_generator(purpose).make_token(user)
    return _url(origin, "password_reset.confirm", uidb64=encode_uid(user.id), token=token)


def _context(row: OutboxMessage, letter: Letter) -> dict[str, Any]:
    origin = origin_of(row)
    context: dict[str, Any] = {
        "site_name": current_app.config["SITE_NAME"],
        "site_url": origin,
        "email": letter.recipient,
        "link": _url(origin, "password_reset.reset"),
        "request": Asked(row.created_at, row.client_address, browser(row.user_agent)),
    }
    purpose = PURPOSES.get(letter.name)
    if purpose and letter.user:
        context |= _django_context(letter.user, purpose, origin)
    return {**context, **row.options.get("extra_email_context", {})}


def _django_context(user: User, purpose: str, origin: str) -> dict[str, Any]:
    link = link_to_confirm(user, purpose, origin)
    scheme, domain, path, *_ = urlsplit(link)
    _, _, uid, token = path.split("/")
    lifetime = in_words(token_generator(purpose).lifetime)
    # What a template written for Django goes by, which puts the link together itself.
    parts = {"protocol": scheme, "domain": domain, "uid": uid, "token": token}
    return {"link": link, "lifetime": lifetime, "user": user, **parts}


def _url(origin: str, endpoint: str, **values: str) -> str:
    scheme, host, *_ = urlsplit(origin)
    return current_app.url_map.bind(host, url_scheme=scheme).build(endpoint, values, force_external=True)


def _render(template: str, context: dict[str, Any]) -> str:
    return current_app.jinja_env.get_template(template).render(context)


def _transfer_encoding(text: str) -> str:
    # The lines of bytes: of text, Python ends lines at form feeds too, which don't end one on the wire.
    plain = text.isascii() and all(len(line) <= LONGEST_PLAIN_LINE for line in text.encode().splitlines())
    return "7bit" if plain else "quoted-printable"
