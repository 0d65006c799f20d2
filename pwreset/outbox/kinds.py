"""The kinds of email that a row of the outbox can request."""

from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from pwreset.accounts.events import Kind

REQUEST_LIFETIME = timedelta(hours=24)
NOTICE_LIFETIME = timedelta(days=7)


class EmailKind(StrEnum):
    """A kind of email, by the name stored in its row.

    Attributes:
        template: the folder of its texts below `templates/mail/`.
        purpose: which token its link carries, a name of `tokens.PURPOSES`; None for an email without such a link.
        event: the security event of the request; None for a notice. Strangers can request every kind with an event, so
            these kinds have a cooldown. Only this application requests a notice.
        lifetime: how long a row may wait before it expires.
    """

    template: str
    purpose: str | None
    event: Kind | None
    lifetime: timedelta

    PASSWORD_RESET = "password_reset", "password_reset", "reset", Kind.REQUESTED, REQUEST_LIFETIME
    REGISTRATION = "register", "invite", "invite", Kind.REGISTERED, REQUEST_LIFETIME
    PASSWORD_CHANGED = "password_changed", "password_changed", None, None, NOTICE_LIFETIME

    def __new__(cls, name: str, *attributes: Any) -> Self:
        """Keep the attributes beside the name."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.template, kind.purpose, kind.event, kind.lifetime = attributes
        return kind
