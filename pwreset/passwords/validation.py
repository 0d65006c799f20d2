"""Decides how a new password is validated: all complaints at once, and the rules about its length and characters.

Validators see a password as `prepare` returns it, and count code points (NIST SP 800-63B-4, section 3.1.1.2). They
must not require kinds of characters (the same section; ASVS 5.0, 6.2.5). Rules about what an attacker would try first
are in `strength.py`. An error must not contain the password: its text goes to a page, and may go to a log.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Protocol

from pwreset.passwords.hashing import MAX_LENGTH, prepare


class ValidationError(ValueError):
    """A password was refused, for one reason or for several.

    Args:
        message: the sentence to show, or the errors to join into one.
        code: a name for the reason, for code and tests; an error that joins others is "invalid".

    Attributes:
        messages: every sentence to show, in order.
        code: as given.
        error_list: the single errors, in order; for a single error, itself.

    Source: Django, django/core/exceptions.py, ValidationError, without nesting by field.
    """

    def __init__(self, message: str | Sequence[ValidationError], code: str = "invalid") -> None:
        self.code = code
        if isinstance(message, str):
            self.messages = [message]
            self.error_list = [self]
        else:
            self.messages = [text for error in message for text in error.messages]
            self.error_list = [single for error in message for single in error.error_list]
        super().__init__(" ".join(self.messages))


class PasswordValidator(Protocol):
    """One rule for new passwords; any object with these two methods will do.

    Source: Django, docs/topics/auth/passwords.txt, "Writing your own validator".
    """

    def validate(self, password: str, user: object | None = None) -> None:
        """Refuse a password, or return.

        Args:
            password: the password as `prepare` returns it.
            user: the user who will have it, if known.

        Raises:
            ValidationError: the password breaks the rule.
        """

    def get_help_text(self) -> str:
        """Return the rule as a sentence for the person who chooses a password."""


def validate_password(password: str, user: object | None, validators: Sequence[PasswordValidator]) -> None:
    """Refuse a new password with all complaints at once, or return.

    Args:
        password: the password as typed.
        user: the user who will have it; the password must not resemble the user's `email`.
        validators: the rules, such as `default_validators`.

    Raises:
        ValidationError: one error with the messages of all validators that refused, in their order.

    Source: Django, django/contrib/auth/password_validation.py, validate_password.
    """
    prepared = prepare(password)
    errors: list[ValidationError] = []
    for validator in validators:
        try:
            validator.validate(prepared, user)
        except ValidationError as error:
            errors.append(error)
    if errors:
        raise ValidationError(errors)


def password_validators_help_texts(validators: Sequence[PasswordValidator]) -> list[str]:
    """Return the help text of each validator, in order.

    Source: Django, django/contrib/auth/password_validation.py, password_validators_help_texts.
    """
    return [validator.get_help_text() for validator in validators]


class BaseValidator:
    """A rule with one sentence for a refused password and one for the help text.

    A subclass of a rule may override `get_error_message` and `get_help_text`, as in Django.
    """

    code: str
    error_message: str
    help_text: str

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError with this rule's code if the prepared password breaks the rule."""
        if self._refuses(password):
            raise ValidationError(self.get_error_message(), code=self.code)

    def get_error_message(self) -> str:
        """Return the sentence for a refused password."""
        return self.error_message

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return self.help_text

    def _refuses(self, password: str) -> bool:
        raise NotImplementedError  # each rule has its own; BaseValidator alone is none


class MinimumLengthValidator(BaseValidator):
    """Refuse a password of fewer than `min_length` code points.

    Source: NIST SP 800-63B-4, section 3.1.1.2 (15 where the password is the only factor); ASVS 5.0, 6.2.1.
    """

    code = "password_too_short"

    def __init__(self, min_length: int = 15) -> None:
        self.min_length = min_length
        self.error_message = f"This password is too short. It must contain at least {_characters(min_length)}."
        self.help_text = f"Your password must contain at least {_characters(min_length)}."

    def _refuses(self, password: str) -> bool:
        return len(password) < self.min_length


class MaximumLengthValidator(BaseValidator):
    """Refuse a password of more than `max_length` code points, instead of truncating it.

    Args:
        max_length: in code points; `make_password` hashes no more than 1,024.

    Source: NIST SP 800-63B-4, section 3.1.1.2 (64 or more, all of the password verified); ASVS 5.0, 6.2.9.
    """

    code = "password_too_long"

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self.max_length = max_length
        self.error_message = f"This password is too long. It must contain at most {_characters(max_length)}."
        self.help_text = f"Your password can contain at most {_characters(max_length)}."

    def _refuses(self, password: str) -> bool:
        return len(password) > self.max_length


class PrintableValidator(BaseValidator):
    """Refuse control characters and lone surrogates (Unicode categories Cc and Cs).

    A control character can be pasted by accident, but not typed again; a lone surrogate can't be hashed. Everything
    else is accepted, including unassigned code points and joined emoji; the docstring of `prepare` gives the reason.

    Source: RFC 8264, section 9.12 (Controls); NIST SP 800-63B-4, section 3.1.1.2 (printing ASCII, space, Unicode).
    """

    code = "password_not_printable"
    error_message = "This password contains a character that can’t be typed, such as a tab or a line break."
    help_text = "Your password can contain any letters, digits, symbols, spaces and emoji."

    def _refuses(self, password: str) -> bool:
        return any(unicodedata.category(char) in {"Cc", "Cs"} for char in password)


class NumericPasswordValidator(BaseValidator):
    """Refuse a password of digits only, with or without white space between them.

    Source: Django, django/contrib/auth/password_validation.py, NumericPasswordValidator.
    """

    code = "password_entirely_numeric"
    error_message = "This password is entirely numeric."
    help_text = "Your password can’t be entirely numeric."

    def _refuses(self, password: str) -> bool:
        return "".join(password.split()).isdigit()


def _characters(count: int) -> str:
    return f"{count} character" if count == 1 else f"{count} characters"
