"""Decides which passwords are accepted, and how they are stored and checked.

`validate_password` and then `make_password` run when a password is set, `check_password` when it is used; both
`prepare` it first. Names and meanings are those of django.contrib.auth.

This package must not import Flask, the database or the User model; a user is any object with an `email`.
"""

from pwreset.passwords.hashing import (
    MAX_LENGTH,
    check_password,
    is_password_usable,
    make_password,
    password_needs_rehash,
    prepare,
)
from pwreset.passwords.strength import (
    CommonPasswordValidator,
    StrengthValidator,
    UserAttributeSimilarityValidator,
    default_validators,
)
from pwreset.passwords.validation import (
    MaximumLengthValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    PasswordValidator,
    PrintableValidator,
    ValidationError,
    password_validators_help_texts,
    validate_password,
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
