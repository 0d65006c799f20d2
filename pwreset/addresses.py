"""What an e-mail address is, when two are the same, and how one is written on the wire.

Decides syntax and identity only. It never asks DNS: a lookup would cost time for some addresses and not for others,
and would tell a name server who is asked about.
"""

import unicodedata

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

# The validator would refuse `localhost`, `.test` and `.local`, where this app is tried out and intranets live.
SPECIAL_USE_DOMAIN_NAMES.clear()
MAXIMUM_LENGTH = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets; in code points
MAXIMUM_KEY = 640  # code points; what the column holds
TOO_LONG = f"An email address has at most {MAXIMUM_LENGTH} characters."


class AddressError(ValueError):
    """The text is not an e-mail address; the message says why, for the person who typed it."""


def normalize(text: str) -> str:
    """Return the address in the form that is stored: trimmed, NFC, the domain in lower case.

    As in Django, a domain needs a dot or is `localhost`; whether it exists is not asked.

    Raises:
        AddressError: if it isn't one address.
    """
    text = text.strip()
    _refuse_at_once(text)
    try:
        address = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise AddressError(str(error)) from None
    if "." not in address.domain and address.domain != "localhost":
        msg = "Enter the whole address, such as name@example.com."
        raise AddressError(msg)
    if len(address.normalized) > MAXIMUM_LENGTH or len(email_key(address.normalized)) > MAXIMUM_KEY:
        raise AddressError(TOO_LONG)  # a few characters of Unicode unfold into many
    return address.normalized


def _refuse_at_once(text: str) -> None:
    """Refuse what must not even be taken apart."""
    if "\ufffd" in text:  # what a decoder puts where bytes were no text
        msg = "Enter the address without unreadable characters."
        raise AddressError(msg)
    if "=?" in text:  # RFC 2047: who reads the mail's To field decodes what stands there, and finds other addresses
        msg = "An email address can't have the characters =? after one another."
        raise AddressError(msg)
    if len(text) > MAXIMUM_LENGTH:
        raise AddressError(TOO_LONG)


def email_key(address: str) -> str:
    """Return what makes an address unique: NFKC and casefolded, so `JOSÉ@`, `josé@` and full-width letters are one.

    Computed here and not by the database, whose `lower()` misses Unicode pairs (CVE-2019-19844 grew out of a
    comparison the database made). The key finds an account; mail always goes to the address stored with it.
    """
    local, at, domain = unicodedata.normalize("NFKC", address).rpartition("@")
    # Not casefolded: straße.de and strasse.de are two domains (RFC 5891), and belong to different people.
    return unicodedata.normalize("NFKC", local.casefold() + at + domain.lower())


def envelope(address: str) -> str:
    """Return the address as SMTP carries it: the domain in its ASCII (IDNA) form; the local part is left alone."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():  # in that form already; a relay may know hosts that are no public names
        return address
    parsed = validate_email(f"x@{domain}", check_deliverability=False, globally_deliverable=False)
    return f"{local}@{parsed.ascii_domain}"
