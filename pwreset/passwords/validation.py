"""Decides which validators a new password meets, and that all their complaints are shown at once.

This module must not know a rule itself: each one is a validator. It must not store anything either.
"""

from collections.abc import Sequence
from typing import Protocol

from pwreset.passwords.common import CommonPasswordValidator
from pwreset.passwords.errors import ValidationError
from pwreset.passwords.preparation import prepare
from pwreset.passwords.similarity import UserAttributeSimilarityValidator
from pwreset.passwords.strength import StrengthValidator
from pwreset.passwords.validators import (
    MaximumLengthValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    PrintableValidator,
)

__all__ = [
    "PasswordValidator",
    "ValidationError",
    "default_validators",
    "password_validators_help_texts",
    "validate_password",
]


class PasswordValidator(Protocol):
    """One rule for new passwords; any object with these two methods will do.

    Source: Django, docs/topics/auth/passwords.txt, "Writing your own validator".
    """

    def validate(self, password: str, user: object | None = None) -> None:
        """Refuse a password, or return.

        Args:
            password: the password as `prepare` returns it.
            user: whose password it will be, if known.

        Raises:
            ValidationError: the password breaks the rule.
        """

    def get_help_text(self) -> str:
        """Return the rule as a sentence for the person who chooses a password."""


def validate_password(
    password: str, user: object | None = None, validators: Sequence[PasswordValidator] | None = None
) -> None:
    """Refuse a new password with every complaint there is, or return.

    Args:
        password: the password as typed.
        user: whose password it will be; its `email` may not be the password.
        validators: the rules; None for the standard ones, with 15 characters and no site name.

    Raises:
        ValidationError: one error with the messages of all validators that refused, in their order.

    Source: Django, django/contrib/auth/password_validation.py, validate_password.
    """
    prepared = prepare(password)
    errors: list[ValidationError] = []
    for validator in default_validators() if validators is None else validators:
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


def default_validators(min_length: int = 15, site_name: str = "") -> list[PasswordValidator]:
    """Return the standard validators, in the order their help texts and complaints are shown.

    Args:
        min_length: the shortest password, in code points.
        site_name: the site's name, which a password may not be built from.
    """
    return [
        MinimumLengthValidator(min_length),
        MaximumLengthValidator(),
        PrintableValidator(),
        UserAttributeSimilarityValidator(),
        CommonPasswordValidator(),
        NumericPasswordValidator(),
        StrengthValidator(site_name),
    ]
