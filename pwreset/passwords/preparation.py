"""Decides which spellings of a password are the same password.

The rules are those of RFC 8265, section 4.2.2 (the OpaqueString profile), that change a string: every non-ASCII
space becomes U+0020, then the whole is composed (NFC, the form NIST SP 800-63B-4 section 3.1.1.2 names too). So
"é" checks the same from a Mac, which may send it decomposed, and from a phone, and so does a no-break space typed
by accident. Nothing else changes: no case mapping, no stripping, no cutting (ASVS 5.0, 6.2.8).

OpaqueString would also refuse what lies outside RFC 8264's FreeformClass. That is not enforced: it takes the
zero-width joiner, which holds many emoji together, only after a virama, where NIST asks that Unicode be accepted;
and it excludes unassigned code points, which differ with the Unicode version of each Python, so a password set on
one version could be refused by another. (A character newer than this Python's Unicode may compose differently after
an upgrade. That is rare, and a reset repairs it.) Only control characters and lone surrogates are refused, when a
password is set, by `PrintableValidator`.

This module must not refuse anything, and must run in the same way when a password is set and when it is checked.
"""

import unicodedata

MAX_LENGTH = 1024
"""The longest password that is hashed, in code points after `prepare`."""

# No code point decomposes into more than four (test_preparation.py holds this for the running Python), so
# composing leaves at least a quarter of the length.
_LONGEST_DECOMPOSITION = 4


def prepare(password: str) -> str:
    """Return the one spelling under which a password is measured, hashed and compared.

    Preparing twice changes nothing more.

    Args:
        password: the password as it was typed; any string, lone surrogates included.

    Returns:
        The password with each space separator (Unicode category Zs) as U+0020, in NFC. One of more than
        4 x 1,024 code points isn't composed: it stays longer than `MAX_LENGTH` either way.

    Source: RFC 8265, section 4.2.2, rules 2 and 4.
    """
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    # Composing sorts combining marks in quadratic time: 64 KiB of them in a login form would take half a second.
    if len(spaced) > _LONGEST_DECOMPOSITION * MAX_LENGTH:
        return spaced
    return unicodedata.normalize("NFC", spaced)
