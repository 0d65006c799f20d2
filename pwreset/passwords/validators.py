"""Decides what a password may look like on its own: its length and its characters.

Each validator takes a password as `prepare` returns it, and counts code points, as NIST SP 800-63B-4 section
3.1.1.2 asks. `get_error_message` is there to be overridden, as in Django.

These validators must not ask for kinds of characters (NIST in the same section, and ASVS 5.0, 6.2.5), and must not
look at who chose the password: `similarity.py`, `common.py` and `strength.py` judge what an attacker would guess.
"""

import unicodedata

from pwreset.passwords.errors import ValidationError
from pwreset.passwords.preparation import MAX_LENGTH

_UNPRINTABLE = {"Cc", "Cs"}


class MinimumLengthValidator:
    """Refuse a password of fewer than `min_length` code points.

    Args:
        min_length: in code points.

    Source: NIST SP 800-63B-4, section 3.1.1.2 (15 where the password is the only factor); ASVS 5.0, 6.2.1.
    """

    def __init__(self, min_length: int = 15) -> None:
        """See the class."""
        self.min_length = min_length

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_too_short") if the prepared password is too short."""
        if len(password) < self.min_length:
            raise ValidationError(self.get_error_message(), code="password_too_short")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password."""
        return f"This password is too short. It must contain at least {_characters(self.min_length)}."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return f"Your password must contain at least {_characters(self.min_length)}."


class MaximumLengthValidator:
    """Refuse a password of more than `max_length` code points, rather than cut it.

    Args:
        max_length: in code points; `make_password` hashes no more than 1,024.

    Source: NIST SP 800-63B-4, section 3.1.1.2 (64 or more, the whole password verified); ASVS 5.0, 6.2.9.
    """

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        """See the class."""
        self.max_length = max_length

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_too_long") if the prepared password is too long."""
        if len(password) > self.max_length:
            raise ValidationError(self.get_error_message(), code="password_too_long")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password."""
        return f"This password is too long. It must contain at most {_characters(self.max_length)}."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return f"Your password can contain at most {_characters(self.max_length)}."


class PrintableValidator:
    """Refuse control characters and lone surrogates (Unicode categories Cc and Cs).

    A control character can be pasted by accident, but not typed again; a lone surrogate can't be hashed. All else
    is accepted, unassigned code points and joined emoji too; `preparation.py` says why.

    Source: RFC 8264, section 9.12 (Controls); NIST SP 800-63B-4, section 3.1.1.2 (printing ASCII, space, Unicode).
    """

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_not_printable") if the password holds such a character."""
        if any(unicodedata.category(char) in _UNPRINTABLE for char in password):
            raise ValidationError(self.get_error_message(), code="password_not_printable")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password."""
        return "This password contains a character that can’t be typed, such as a tab or a line break."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return "Your password can contain any letters, digits, symbols, spaces and emoji."


class NumericPasswordValidator:
    """Refuse a password of digits only, with or without white space between them.

    Source: Django, django/contrib/auth/password_validation.py, NumericPasswordValidator.
    """

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_entirely_numeric") if there is nothing but digits."""
        if "".join(password.split()).isdigit():
            raise ValidationError(self.get_error_message(), code="password_entirely_numeric")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password."""
        return "This password is entirely numeric."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return "Your password can’t be entirely numeric."


def _characters(count: int) -> str:
    return f"{count} character" if count == 1 else f"{count} characters"
