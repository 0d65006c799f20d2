"""What an email address is, when two are the same, and how SMTP writes one.

Decides syntax and identity only. It never queries DNS: a lookup would take longer for some addresses than for others,
and would reveal to a name server which addresses people type.
"""

import unicodedata

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

# By default, the validator rejects `localhost`, `.test` and `.local`, which test sites and intranets use.
SPECIAL_USE_DOMAIN_NAMES.clear()
MAXIMUM_LENGTH = 254  # code points; RFC 5321 section 4.5.3.1.3, without the angle brackets
MAXIMUM_KEY = 640  # code points; the length of the column
TOO_LONG = f"An email address has at most {MAXIMUM_LENGTH} characters."


class AddressError(ValueError):
    """The text is not an email address; the message says why, for the person who typed it."""


def normalize(text: str) -> str:
    """Return the address in the form that is stored: trimmed, NFC, the domain in lower case.

    As in Django, a domain needs a dot or is `localhost`; it need not exist.

    Raises:
        AddressError: the text is not exactly one address.
    """
    text = text.strip()
    _reject_before_parsing(text)
    try:
        address = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise AddressError(str(error)) from None
    if "." not in address.domain and address.domain != "localhost":
        raise AddressError("Enter the whole address, such as name@example.com.")
    if len(address.normalized) > MAXIMUM_LENGTH or len(email_key(address.normalized)) > MAXIMUM_KEY:
        raise AddressError(TOO_LONG)  # some Unicode characters casefold to several
    return address.normalized


def _reject_before_parsing(text: str) -> None:
    """Reject texts that must not reach the parser."""
    if "\ufffd" in text:  # the replacement for bytes that can't be decoded
        raise AddressError("Enter the address without unreadable characters.")
    if "=?" in text:  # RFC 2047: an email program would decode the word in the To field, and could find other addresses
        raise AddressError("An email address can't have the characters =? after one another.")
    if len(text) > MAXIMUM_LENGTH:
        raise AddressError(TOO_LONG)


def email_key(address: str) -> str:
    """Return the key by which an address is unique: in NFKC and casefolded, so `JOSÉ@` and `josé@` are the same.

    It is computed here, since the database's `lower()` misses Unicode pairs (CVE-2019-19844 came from a comparison in
    the database). The key finds an account; email always goes to the address stored with that account.
    """
    local, at, domain = unicodedata.normalize("NFKC", address).rpartition("@")
    # The domain is not casefolded: straße.de and strasse.de are two domains (RFC 5891) with different owners.
    return unicodedata.normalize("NFKC", local.casefold() + at + domain.lower())


def envelope(address: str) -> str:
    """Return the address for SMTP: the domain in its ASCII form (IDNA), the local part unchanged."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():  # already in that form; a relay may know hosts without a public name
        return address
    parsed = validate_email(f"x@{domain}", check_deliverability=False, globally_deliverable=False)
    return f"{local}@{parsed.ascii_domain}"
