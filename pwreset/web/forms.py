"""The fields and forms that several pages share, with the attributes that browsers and password managers read.

They check syntax and the rules for a new password. No field looks anything up: the errors of a form must not depend on
who has an account.
"""

from typing import Any

from flask import current_app
from flask_wtf import FlaskForm
from wtforms import EmailField, PasswordField
from wtforms.validators import InputRequired, StopValidation

from pwreset import addresses
from pwreset.models import User
from pwreset.passwords import validation
from pwreset.passwords.hashing import MAX_LENGTH, prepare
from pwreset.passwords.strength import default_validators

# Code points as typed: composed (NFC), the password may be a quarter as long, and the rules measure that.
LONGEST_TYPED = 4 * MAX_LENGTH
REQUESTED_AGAIN = "You asked again. Another mail can take a minute."  # with and without an account


class AddressField(EmailField):
    """An email address; after validation `field.data` is in its stored form."""

    def __init__(self, *, autocomplete: str = "email", **kwargs: Any) -> None:
        attributes = {"autocomplete": autocomplete, "inputmode": "email", "autocapitalize": "none"}
        attributes |= {"spellcheck": "false", "maxlength": str(addresses.MAXIMUM_LENGTH)}
        validators = [InputRequired("Enter your email address."), _normalized]
        super().__init__("Email address", validators, render_kw=attributes, **kwargs)


class PasswordInput(PasswordField):
    """A password as typed: it is never stripped, and never sent back to the page."""

    def __init__(self, label: str, *, autocomplete: str, **kwargs: Any) -> None:
        attributes = {"autocomplete": autocomplete, "autocapitalize": "none", "spellcheck": "false"}
        super().__init__(label, [InputRequired("Enter a password."), _bounded], render_kw=attributes, **kwargs)


class AddressForm(FlaskForm):
    """An address alone."""

    email = AddressField()

    @property
    def address(self) -> str:
        """The address in its stored form, once the form is valid."""
        return self.email.data or ""


def _normalized(_form: FlaskForm, field: EmailField) -> None:
    try:
        field.data = addresses.normalize(field.data or "")
    except addresses.AddressError as error:
        raise StopValidation(str(error)) from None


def _bounded(_form: FlaskForm, field: PasswordField) -> None:
    if len(field.data or "") > LONGEST_TYPED:
        message = f"A password has at most {MAX_LENGTH:,} characters."
        raise StopValidation(message)


class PasswordResetForm(AddressForm):
    """The address that gets the link (Django's name)."""


class SetPasswordForm(FlaskForm):
    """A new password, twice (Django's name); all errors are shown together.

    Args:
        user: the account; the rules compare the password with its address.
    """

    new_password1 = PasswordInput("New password", autocomplete="new-password")
    new_password2 = PasswordInput("New password, again", autocomplete="new-password")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)

    def validate_new_password1(self, field: PasswordField) -> None:
        """Check every rule (WTForms calls this for the field)."""
        try:
            validation.validate_password(field.data or "", self.user, password_validators())
        except validation.ValidationError as error:
            field.errors = [*field.errors, *error.messages]

    def validate_new_password2(self, field: PasswordField) -> None:
        """Check that both are the same, in the form that is hashed."""
        first = self.new_password1.data
        if first and prepare(first) != prepare(field.data or ""):
            raise StopValidation("The two passwords are not the same.")


def password_validators() -> list[validation.PasswordValidator]:
    """Return the rules for a new password on this site."""
    return default_validators(current_app.config["PASSWORD_MIN_LENGTH"], current_app.config["SITE_NAME"])


def help_texts() -> list[str]:
    """Return the rules in words, in their order."""
    return validation.password_validators_help_texts(password_validators())
