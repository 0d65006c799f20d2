"""The tokens of emailed links: a signature over the user's id, with the account's current state in the key.

Decides which state a link of each purpose depends on, and how long it is valid. There is no table of tokens: a change
of the state (a new password, a login, another address, "sign out everywhere") ends the link. Links that revoke stay
valid after a login or a new password. A token must never reach a database, a log, a broker or an exception message.
Django's counterpart: `django/contrib/auth/tokens.py`.
"""

import json
from collections.abc import Sequence
from hashlib import sha256

from flask import current_app
from itsdangerous import BadData, BadSignature, SignatureExpired, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode

from pwreset.accounts.service import find_by_id
from pwreset.clock import utcnow
from pwreset.models import User
from pwreset.state import AppState

MAXIMUM_ID = 2**31 - 1  # PostgreSQL's integer; a larger one would be an error there instead of "no such user"
MAXIMUM_LENGTH = 200  # characters; our tokens have 50
# Each purpose with the setting for its lifetime; the lifetime of a notice's link, 7 days, is fixed.
PURPOSES = {
    "reset": "PASSWORD_RESET_TIMEOUT",
    "invite": "INVITE_TIMEOUT",
    "cancel": "PASSWORD_RESET_TIMEOUT",
    "notice": None,
}
NOTICE_LIFETIME = 7 * 86400  # seconds
REVOKING = frozenset({"cancel", "notice"})


class TokenError(Exception):
    """The token does not open the page."""


class TokenInvalid(TokenError):
    """The token is not valid for this user and purpose: it was forged or used, or the account has changed since."""


class TokenExpired(TokenError):
    """The token was valid, but its lifetime is over."""


class PasswordResetTokenGenerator:
    """Creates and checks the tokens of one purpose; subclass it and pass it to `create_app(token_generator=...)`.

    Args:
        purpose: a name of `PURPOSES`. It is part of the key, so one purpose's token never opens another's page.
    """

    def __init__(self, purpose: str = "reset") -> None:
        self.purpose = purpose

    def make_token(self, user: User) -> str:
        """Return a token for the user as it is now: the time, a dot and a signature, 50 characters of URL-safe text."""
        uid = encode_uid(user.id)
        return self._signer(user).sign(uid).decode("ascii").removeprefix(f"{uid}.")

    def check_token(self, user: User | None, token: str | None) -> bool:
        """Whether the token opens the page now (Django's method)."""
        try:
            self.verify(user, token)
        except TokenError:
            return False
        return True

    def has_expired(self, user: User | None, token: str | None) -> bool:
        """Whether only the token's age keeps it from opening the page."""
        try:
            self.verify(user, token)
        except TokenError as error:
            return isinstance(error, TokenExpired)
        return False

    def verify(self, user: User | None, token: str | None) -> User:
        """Return the user if the token opens the page now.

        Raises:
            TokenExpired: if it is authentic but older than the purpose's lifetime.
            TokenInvalid: otherwise.
        """
        if user is None or not token or not user.is_active or not _is_canonical(token):
            raise TokenInvalid
        try:
            self._signer(user).unsign(f"{encode_uid(user.id)}.{token}", max_age=self.lifetime)
        except SignatureExpired as error:
            ahead = (
                error.date_signed is not None and error.date_signed > utcnow()
            )  # itsdangerous reports this as expired too
            raise (TokenInvalid if ahead else TokenExpired) from None
        except BadSignature:  # the library's message contains what was signed
            raise TokenInvalid from None
        return user

    @property
    def lifetime(self) -> int:
        """How long a token of this purpose is valid, in seconds."""
        setting = PURPOSES[self.purpose]
        return int(current_app.config[setting]) if setting else NOTICE_LIFETIME

    def state(self, user: User) -> list[str | int | None]:
        """Return the values that the token depends on, besides the secret key.

        The hash changes with every new password, even the same one (by its salt); the stamp with every reset, change,
        deactivation and "sign out everywhere"; a login shows that the owner knows the password again; a changed address
        may belong to another person. Django's `_make_hash_value` uses the same values, except the stamp.

        A link that revokes depends only on account and address, because an attacker logs in, or sets a password, first.
        """
        if self.purpose in REVOKING:
            return [user.id, user.email]
        last_login = user.last_login.isoformat() if user.last_login else None
        return [user.id, user.password_hash, user.security_stamp, last_login, user.email]

    def _signer(self, user: User) -> TimestampSigner:
        # JSON, because two different states could be equal once their fields are joined.
        salt = json.dumps(["pwreset", self.purpose, *self.state(user)])
        keys = [*reversed(current_app.config["SECRET_KEY_FALLBACKS"]), current_app.config["SECRET_KEY"]]
        return TimestampSigner(keys, salt=salt, key_derivation="hmac", digest_method=sha256)


def token_generator(purpose: str) -> PasswordResetTokenGenerator:
    """Return the application's generator for a purpose; the one passed to `create_app` serves `reset`."""
    state: AppState = current_app.extensions["pwreset"]
    custom: PasswordResetTokenGenerator | None = state.token_generator
    return custom if custom and purpose == "reset" else PasswordResetTokenGenerator(purpose)


def check_link(uidb64: str, token: str, purposes: Sequence[str]) -> tuple[User, str]:
    """Return the account and the purpose of a link.

    Args:
        uidb64: the id as it is in the link.
        token: the token as it is in the link.
        purposes: names of `PURPOSES`, tried in order.

    Raises:
        TokenExpired: the link was valid for one of the purposes, but its lifetime is over.
        TokenInvalid: the link is not valid for another reason.
    """
    user_id = decode_uid(uidb64)
    user = find_by_id(user_id) if user_id else None
    if user is None or not user.is_active:
        raise TokenInvalid
    for purpose in purposes:
        if token_generator(purpose).check_token(user, token):
            return user, purpose
    raise TokenExpired if any(token_generator(name).has_expired(user, token) for name in purposes) else TokenInvalid


def encode_uid(user_id: int) -> str:
    """Return the id as Django writes it into links: its decimal digits in unpadded URL-safe base64."""
    return base64_encode(str(user_id)).decode()


def decode_uid(uidb64: str) -> int | None:
    """Return the id, or None for anything `encode_uid` would not have written."""
    try:
        user_id = int(base64_decode(uidb64))
    except (BadData, ValueError):
        return None
    return user_id if 0 < user_id <= MAXIMUM_ID and encode_uid(user_id) == uidb64 else None


def _is_canonical(token: str) -> bool:
    # The last base64 character has spare bits, so four spellings of one signature verify; only one was emailed.
    if len(token) > MAXIMUM_LENGTH:
        return False
    try:
        return all(part and base64_encode(base64_decode(part)).decode() == part for part in token.split("."))
    except BadData:
        return False
