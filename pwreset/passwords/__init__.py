"""Decides which passwords are accepted, and how they are stored and checked.

Two walks meet in `prepare`: `validate_password` then `make_password` when a password is set, `check_password` when
it is used. Names and meanings are those of django.contrib.auth.

This package must not know Flask, the database or the User model; a user is any object with an `email`.
"""

from pwreset.passwords.common import CommonPasswordValidator
from pwreset.passwords.errors import ValidationError
from pwreset.passwords.hashing import check_password, is_password_usable, make_password, password_needs_rehash
from pwreset.passwords.preparation import MAX_LENGTH, prepare
from pwreset.passwords.similarity import UserAttributeSimilarityValidator
from pwreset.passwords.strength import StrengthValidator
from pwreset.passwords.validation import (
    PasswordValidator,
    default_validators,
    password_validators_help_texts,
    validate_password,
)
from pwreset.passwords.validators import (
    MaximumLengthValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    PrintableValidator,
)

__all__ = [
    "MAX_LENGTH",
    "CommonPasswordValidator",
    "MaximumLengthValidator",
    "MinimumLengthValidator",
    "NumericPasswordValidator",
    "PasswordValidator",
    "PrintableValidator",
    "StrengthValidator",
    "UserAttributeSimilarityValidator",
    "ValidationError",
    "check_password",
    "default_validators",
    "is_password_usable",
    "make_password",
    "password_needs_rehash",
    "password_validators_help_texts",
    "prepare",
    "validate_password",
]
