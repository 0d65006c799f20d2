"""Writes the email of an outbox row: its recipient, its texts, and its links.

The recipient is always the address stored with the account, never the one typed. Tokens are created only here
(`flask users reset-link` calls `link_to_page`). A token is in the returned email only; it must not be logged or stored.
"""

from dataclasses import dataclass
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
from pwreset.outbox.kinds import EmailKind
from pwreset.request_info import browser

PAGES = {
    "reset": "password_reset.confirm",
    "invite": "password_reset.confirm",
    "cancel": "password_reset.cancel",
    "notice": "password_reset.secure",
}
HEADERS = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}
"""They prevent automatic replies such as vacation notices (RFC 3834, section 5)."""


@dataclass(frozen=True)
class EmailDraft:
    """What to write: the folder of the texts, the recipient, the account if there is one, and its link's purpose."""

    template: str
    recipient: str
    user: User | None
    purpose: str | None


def draft_for(row: OutboxMessage) -> EmailDraft | None:
    """Return what to write for a row, or None if it has no recipient. A registration creates its account here.

    Raises:
        ValueError: this version does not know the row's kind.
    """
    kind = EmailKind(row.kind)
    user = accounts.find(row.address)
    if kind is EmailKind.PASSWORD_CHANGED:
        return EmailDraft(kind.template, row.address, user, kind.purpose)
    if kind is EmailKind.REGISTRATION:
        user = user or accounts.create(row.address, registered=True) or accounts.find(row.address)
    if user is None or not user.is_active:
        return None
    if kind is EmailKind.REGISTRATION and user.has_usable_password():
        return EmailDraft("account_exists", user.email, user, None)
    return EmailDraft(kind.template, user.email, user, kind.purpose)


def write(row: OutboxMessage, draft: EmailDraft) -> Message:
    """Return the email, with its links.

    Raises:
        Exception: a template failed, and the email can't be sent.
    """
    message = _message(row, draft, _context(row, draft))
    # The ID comes from the row, not from this attempt, so that a second copy can be recognised.
    message.msgId = f"<{row.message_id}@{_sender_domain()}>"
    if message.has_bad_headers():
        raise flask_mail.BadHeaderError
    message.as_bytes()  # an encoding error must be raised here, where it only concerns this row
    return message


def _message(row: OutboxMessage, draft: EmailDraft, context: dict[str, Any]) -> Message:
    options = row.options
    folder = f"mail/{draft.template}"
    html = options.get("html_email_template_name", f"{folder}/body.html")
    subject = _render(options.get("subject_template_name") or f"{folder}/subject.txt", context)
    return Message(
        subject=" ".join(subject.split()),
        recipients=[draft.recipient],
        body=_render(options.get("email_template_name") or f"{folder}/body.txt", context),
        html=_render(html, context) if html else None,
        sender=options.get("from_email") or sender(),
        extra_headers=HEADERS,
    )


def test_message(recipient: str) -> Message:
    """Return the email of `flask mail check --to`."""
    site = current_app.config["SITE_NAME"]
    text = f"{site} can send mail.\n\nSomebody who runs it asked for this test with `flask mail check`.\n"
    message = Message(subject=f"Test mail from {site}", recipients=[recipient], body=text, sender=sender())
    message.msgId = make_msgid(domain=_sender_domain())
    return message


def sender() -> str:
    """Return the address that an email comes from, unless its row names another."""
    return current_app.config["EMAIL_FROM"] or "noreply@localhost"


def _sender_domain() -> str:
    return envelope(parseaddr(sender())[1]).rpartition("@")[2]


def origin_of(row: OutboxMessage) -> str:
    """Return the origin of links: PUBLIC_URL if it is set, else the loopback origin that served the form."""
    return current_app.config["PUBLIC_URL"] or row.origin or LOCAL_URL


def link_to_page(user: User, purpose: str, origin: str) -> str:
    """Return a link that opens the page of its purpose, with a new token.

    Args:
        user: as it is now.
        purpose: a name of `PAGES`.
        origin: scheme, host and port that the link starts with.
    """
    token = token_generator(purpose).make_token(user)
    return _url(origin, PAGES[purpose], uidb64=encode_uid(user.id), token=token)


def _context(row: OutboxMessage, draft: EmailDraft) -> dict[str, Any]:
    origin = origin_of(row)
    context: dict[str, Any] = {
        "site_name": current_app.config["SITE_NAME"],
        "site_url": origin,
        "email": draft.recipient,
        "link": _url(origin, "password_reset.reset"),
        "request": {"at": row.created_at, "client_address": row.client_address, "browser": browser(row.user_agent)},
    }
    if draft.user:
        context |= _django_context(draft.user, draft.purpose, origin) if draft.purpose else {}
        context |= _revoke_context(draft, draft.user, origin)
    return {**context, **row.options.get("extra_email_context", {})}


def _django_context(user: User, purpose: str, origin: str) -> dict[str, Any]:
    link = link_to_page(user, purpose, origin)
    scheme, domain, path, *_ = urlsplit(link)
    _, _, uid, token = path.split("/")
    lifetime = humanize_duration(token_generator(purpose).lifetime)
    # Django's templates build the link from these parts.
    parts = {"protocol": scheme, "domain": domain, "uid": uid, "token": token}
    return {"link": link, "lifetime": lifetime, "user": user, **parts}


def _revoke_context(draft: EmailDraft, user: User, origin: str) -> dict[str, str]:
    if draft.purpose == "reset":
        return {"cancel_link": link_to_page(user, "cancel", origin)}
    # Only for the account's current address: the notice goes to the address at the time of the change.
    if draft.template == EmailKind.PASSWORD_CHANGED.template and user.is_active and draft.recipient == user.email:
        lifetime = humanize_duration(token_generator("notice").lifetime)
        return {"secure_link": link_to_page(user, "notice", origin), "secure_lifetime": lifetime}
    return {}


def _url(origin: str, endpoint: str, **values: str) -> str:
    scheme, host, *_ = urlsplit(origin)
    return current_app.url_map.bind(host, url_scheme=scheme).build(endpoint, values, force_external=True)


def _render(template: str, context: dict[str, Any]) -> str:
    return current_app.jinja_env.get_template(template).render(context)
