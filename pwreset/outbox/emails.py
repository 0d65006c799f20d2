"""How a row of the outbox becomes a mail: whom it goes to, which texts, and the link, minted here and nowhere else.

Decides the recipient: always the address stored with the account, never the one typed. The token lives in the mail
returned and in no other place; whoever sends it must not log or store it.
"""

from dataclasses import dataclass
from datetime import datetime
from email.utils import make_msgid, parseaddr
from typing import Any
from urllib.parse import urlsplit

import flask_mail
from flask import current_app

from config import LOCAL_URL
from pwreset import accounts
from pwreset.accounts.tokens import encode_uid, token_generator
from pwreset.addresses import envelope
from pwreset.clock import humanize_duration
from pwreset.mail.message import Message
from pwreset.models import OutboxMessage, User
from pwreset.request_info import browser

KINDS = ("password_reset", "register", "password_changed")
PURPOSES = {"password_reset": "reset", "invite": "invite"}  # by the name of the texts
PAGES = {
    "reset": "password_reset.confirm",
    "invite": "password_reset.confirm",
    "cancel": "password_reset.cancel",
    "notice": "password_reset.secure",
}


@dataclass(frozen=True)
class EmailDraft:
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


def draft_for(row: OutboxMessage) -> EmailDraft | None:
    """Return what to write for a row, or None where nobody is to be mailed; a registration gets its account here.

    Raises:
        LookupError: for a kind that this version does not know.
    """
    if row.kind not in KINDS:
        raise LookupError(row.kind)
    user = accounts.find(row.address)
    if row.kind == "password_changed":
        return EmailDraft(row.kind, row.address, user)
    if row.kind == "register":
        user = user or accounts.create(row.address) or accounts.find(row.address)
    if user is None or not user.is_active:
        return None
    if row.kind == "password_reset":
        return EmailDraft(row.kind, user.email, user)
    return EmailDraft("account_exists" if user.has_usable_password() else "invite", user.email, user)


def write(row: OutboxMessage, letter: EmailDraft) -> Message:
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


def link_to_page(user: User, purpose: str, origin: str) -> str:
    """Return a link that opens the page of its purpose: the one place that makes tokens.

    Args:
        user: as it is now.
        purpose: a name of `PAGES`.
        origin: scheme, host and port that the link starts with.
    """
    token = token_generator(purpose).make_token(user)
    return _url(origin, PAGES[purpose], uidb64=encode_uid(user.id), token=token)


def _context(row: OutboxMessage, letter: EmailDraft) -> dict[str, Any]:
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
    if letter.user:
        context |= _wasnt_me_context(letter, letter.user, origin)
    return {**context, **row.options.get("extra_email_context", {})}


def _django_context(user: User, purpose: str, origin: str) -> dict[str, Any]:
    link = link_to_page(user, purpose, origin)
    scheme, domain, path, *_ = urlsplit(link)
    _, _, uid, token = path.split("/")
    lifetime = humanize_duration(token_generator(purpose).lifetime)
    # What a template written for Django goes by, which puts the link together itself.
    parts = {"protocol": scheme, "domain": domain, "uid": uid, "token": token}
    return {"link": link, "lifetime": lifetime, "user": user, **parts}


def _wasnt_me_context(letter: EmailDraft, user: User, origin: str) -> dict[str, str]:
    if letter.name == "password_reset":
        return {"cancel_link": link_to_page(user, "cancel", origin)}
    # To the address of the account alone: that of a notice may be the one it had when the notice was asked for.
    if letter.name == "password_changed" and user.is_active and letter.recipient == user.email:
        lifetime = humanize_duration(token_generator("notice").lifetime)
        return {"secure_link": link_to_page(user, "notice", origin), "secure_lifetime": lifetime}
    return {}


def _url(origin: str, endpoint: str, **values: str) -> str:
    scheme, host, *_ = urlsplit(origin)
    return current_app.url_map.bind(host, url_scheme=scheme).build(endpoint, values, force_external=True)


def _render(template: str, context: dict[str, Any]) -> str:
    return current_app.jinja_env.get_template(template).render(context)
