"""Decides how passwords are stored, and whether one matches what is stored.

argon2id with the first parameters OWASP's Password Storage Cheat Sheet gives for 19 MiB: t=2, m=19456 KiB, p=1.

Each check costs one hash, whatever is stored. A login that answers faster for an address without an account, or
for an account without a password, tells strangers who has one: CVE-2024-39329 was that in Django, for accounts
with an unusable password. So `check_password` takes None for "no such user", and callers need no branch of their
own. A stored hash of other parameters takes its own time until the next login makes it anew, as in Django.

This module must not judge whether a password is good (`validation.py` does), must not touch the database, and
must not put a password into an exception.
"""

import contextlib
import re
import secrets
import string

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from pwreset.passwords.preparation import MAX_LENGTH, prepare

UNUSABLE_PASSWORD_PREFIX = "!"  # noqa: S105 (no password, the mark of none)
UNUSABLE_PASSWORD_SUFFIX_LENGTH = 40
_SUFFIX_ALPHABET = string.ascii_letters + string.digits

hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def make_password(password: str | None) -> str:
    """Return what to store for a password.

    Args:
        password: the password as typed, at most 1,024 code points after `prepare`; None for an account without one.

    Returns:
        An argon2id hash in PHC format; for None Django's unusable marker, "!" and 40 random letters and digits.

    Raises:
        ValueError: the password is too long or holds a lone surrogate; `validate_password` refuses both before.

    Source: Django, django/contrib/auth/hashers.py, make_password.
    """
    if password is None:
        # Random, so that a token keyed with one marker dies with it.
        suffix = (secrets.choice(_SUFFIX_ALPHABET) for _ in range(UNUSABLE_PASSWORD_SUFFIX_LENGTH))
        return UNUSABLE_PASSWORD_PREFIX + "".join(suffix)
    prepared = prepare(password)
    if not _is_hashable(prepared):
        # argon2-cffi's own UnicodeEncodeError would carry the password.
        msg = f"A password must have at most {MAX_LENGTH} code points and no lone surrogate."
        raise ValueError(msg)
    return hasher.hash(prepared)


def check_password(password: str, encoded: str | None) -> bool:
    """Tell whether a password is the stored one, at the cost of one hash in every case.

    Args:
        password: the password as typed; any string.
        encoded: what `make_password` returned; None if there is no such user.

    Returns:
        True for a match. False for any other password, and always for None, an unusable marker, a hash that is
        malformed or of another kind, and a password that can't have been set (over 1,024 code points after
        `prepare`, or with a lone surrogate). Never raises.

    Source: Django, django/contrib/auth/hashers.py, verify_password; CVE-2024-39329.
    """
    prepared = prepare(password)
    if encoded is None or not is_password_usable(encoded) or not _is_hashable(prepared):
        return _check_dummy()
    try:
        return hasher.verify(encoded, prepared)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        # argon2 gave up while reading the hash, before the work.
        return _check_dummy()


def is_password_usable(encoded: str) -> bool:
    """Tell whether an account has a password: False for what `make_password(None)` returns.

    Args:
        encoded: what is stored.

    Returns:
        False for the marker, True for all else, a malformed hash included.

    Source: Django, django/contrib/auth/hashers.py, is_password_usable.
    """
    return not encoded.startswith(UNUSABLE_PASSWORD_PREFIX)


def password_needs_rehash(encoded: str) -> bool:
    """Tell whether a stored hash was made with other parameters than today's.

    Ask after `check_password` has returned True, the only moment the password is known.

    Args:
        encoded: what is stored.

    Returns:
        True if it should be made anew; False for today's parameters, for a marker, and for what isn't an argon2
        hash, which no password matches.

    Source: OWASP Password Storage Cheat Sheet, "Upgrading the Work Factor".
    """
    try:
        return hasher.check_needs_rehash(encoded)
    except InvalidHashError:
        return False


def _is_hashable(prepared: str) -> bool:
    return len(prepared) <= MAX_LENGTH and not _LONE_SURROGATE.search(prepared)


def _check_dummy() -> bool:
    """Spend what a check spends, and return False."""
    # Written, not computed, or the first call of each process would cost two hashes and stand out.
    salt, digest = "A" * 22, "A" * 43
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    with contextlib.suppress(VerificationError):
        hasher.verify(f"$argon2id$v=19${costs}${salt}${digest}", "")
    return False
