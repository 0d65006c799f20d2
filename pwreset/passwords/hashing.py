"""Decides which spellings of a password are equal, how passwords are stored, and whether one matches what is stored.

Hashes are argon2id with the first parameters of OWASP's Password Storage Cheat Sheet: t=2, m=19456 KiB, p=1.

Each check costs one hash, whatever is stored. If a login answered faster for an address without an account, or for an
account without a password, it would reveal who has one (CVE-2024-39329: Django, accounts with an unusable password).
So `check_password` takes None for "no such user", and callers need no branch of their own. A hash with other
parameters takes its own time until the next login replaces it, as in Django.

This module must not decide which passwords are accepted (`validation.py` does), use the database, or put a password
into an exception.
"""

import contextlib
import re
import secrets
import string
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

MAX_LENGTH = 1024
"""The longest password that is hashed, in code points after `prepare`."""
UNUSABLE_PASSWORD_PREFIX = "!"  # noqa: S105 (not a password, but the marker for none)
UNUSABLE_PASSWORD_SUFFIX_LENGTH = 40

hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_SUFFIX_ALPHABET = string.ascii_letters + string.digits
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# No code point decomposes into more than four (a test checks this for the running Python), so composing leaves at
# least a quarter of the length.
_LONGEST_DECOMPOSITION = 4


def prepare(password: str) -> str:
    """Return the normal form in which a password is measured, hashed and compared.

    "é" from a Mac, which may send it decomposed, equals "é" from a phone, and a no-break space typed by accident
    equals a space. Nothing else changes: no case mapping, no stripping, no truncation (ASVS 5.0, 6.2.8). Nothing is
    refused here: `PrintableValidator` refuses characters when a password is set. The other rules of RFC 8265 are left
    out, since they would refuse most joined emoji, and code points that are newer than this Python's Unicode version.

    Args:
        password: the password as it was typed; any string, lone surrogates included.

    Returns:
        The password with each space separator (Unicode category Zs) as U+0020, in NFC. One of more than
        4 x 1,024 code points isn't composed: it stays longer than `MAX_LENGTH` either way.

    Source: RFC 8265, section 4.2.2 (OpaqueString), rules 2 and 4; NIST SP 800-63B-4, section 3.1.1.2 (NFC).
    """
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    # Composing sorts combining marks in quadratic time: 64 KiB of them in a login form would take half a second.
    if len(spaced) > _LONGEST_DECOMPOSITION * MAX_LENGTH:
        return spaced
    return unicodedata.normalize("NFC", spaced)


def make_password(password: str | None) -> str:
    """Return what to store for a password.

    Args:
        password: the password as typed, at most 1,024 code points after `prepare`; None for an account without one.

    Returns:
        An argon2id hash in PHC format; for None Django's unusable marker, "!" and 40 random letters and digits.

    Raises:
        ValueError: the password is too long or contains a lone surrogate. `validate_password` refuses both earlier.

    Source: Django, django/contrib/auth/hashers.py, make_password.
    """
    if password is None:
        # Random, because tokens are signed with the marker and must become invalid when it changes.
        suffix = (secrets.choice(_SUFFIX_ALPHABET) for _ in range(UNUSABLE_PASSWORD_SUFFIX_LENGTH))
        return UNUSABLE_PASSWORD_PREFIX + "".join(suffix)
    prepared = prepare(password)
    if not _is_hashable(prepared):
        # The UnicodeEncodeError that argon2-cffi raises would contain the password.
        msg = f"A password must have at most {MAX_LENGTH} code points and no lone surrogate."
        raise ValueError(msg)
    return hasher.hash(prepared)


def check_password(password: str, encoded: str | None) -> bool:
    """Return whether a password matches the stored one, at the cost of one hash in every case.

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
        # argon2 could not read the hash, so it has not computed one yet.
        return _check_dummy()


def is_password_usable(encoded: str) -> bool:
    """Return whether an account has a password: False for the marker that `make_password(None)` returns.

    Args:
        encoded: what is stored; True for anything but the marker, a malformed hash included.

    Source: Django, django/contrib/auth/hashers.py, is_password_usable.
    """
    return not encoded.startswith(UNUSABLE_PASSWORD_PREFIX)


def password_needs_rehash(encoded: str) -> bool:
    """Return whether a stored hash was made with other parameters than today's.

    Call this after `check_password` has returned True, which is the only time when the password is known.

    Args:
        encoded: what is stored.

    Returns:
        True if it should be replaced; False for today's parameters, for a marker, and for anything that isn't an
        argon2 hash, which no password matches.

    Source: OWASP Password Storage Cheat Sheet, "Upgrading the Work Factor".
    """
    try:
        return hasher.check_needs_rehash(encoded)
    except InvalidHashError:
        return False


def _is_hashable(prepared: str) -> bool:
    return len(prepared) <= MAX_LENGTH and not _LONE_SURROGATE.search(prepared)


def _check_dummy() -> bool:
    """Take as long as a check, and return False."""
    # The hash is a constant: if it were computed, the first call of each process would cost two hashes.
    salt = "A" * 22
    digest = "A" * 43
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    with contextlib.suppress(VerificationError):
        hasher.verify(f"$argon2id$v=19${costs}${salt}${digest}", "")
    return False
