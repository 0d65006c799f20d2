"""The two forms of the reset, with Django's names.

Decides what a new password must be. They write nothing and look nothing up: the views do what follows.
"""

from typing import Any

from flask import current_app
from flask_wtf import FlaskForm

from pwreset.forms import AddressForm, PasswordInput
from pwreset.models import User
from pwreset.passwords import PasswordValidator, ValidationError, default_validators, prepare, validate_password
from pwreset.passwords import password_validators_help_texts as help_texts_of


class PasswordResetForm(AddressForm):
    """Where to send the link."""


class SetPasswordForm(FlaskForm):
    """A new password, twice; all complaints are shown at once.

    Args:
        user: whose password it will be; the rules look at the address.
    """

    new_password1 = PasswordInput("New password", autocomplete="new-password")
    new_password2 = PasswordInput("New password, again", autocomplete="new-password")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)

    def validate(self, extra_validators: Any = None) -> bool:
        """Check both fields, that they are the same, and every rule."""
        checks = super().validate(extra_validators), self._passwords_match(), self._password_is_good()
        return all(checks)

    def _passwords_match(self) -> bool:
        first, second = self.new_password1.data, self.new_password2.data
        if first and second and prepare(first) != prepare(second):
            self.new_password2.errors = [*self.new_password2.errors, "The two passwords are not the same."]
            return False
        return True

    def _password_is_good(self) -> bool:
        if not self.new_password1.data or self.new_password1.errors:
            return False
        try:
            validate_password(self.new_password1.data, self.user, password_validators())
        except ValidationError as error:
            self.new_password1.errors = [*self.new_password1.errors, *error.messages]
            return False
        return True


def password_validators() -> list[PasswordValidator]:
    """Return this site's rules for a new password."""
    return default_validators(current_app.config["PASSWORD_MIN_LENGTH"], current_app.config["SITE_NAME"])


def help_texts() -> list[str]:
    """Return the rules in words, in the order they are checked."""
    return help_texts_of(password_validators())
