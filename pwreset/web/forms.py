"""The fields and forms that several pages share, with the attributes that browsers and password managers read.

They check syntax and the rules for a new password. No field reads the database: the errors of a form must not depend on
who has an account.
"""

from typing import Any

from flask import current_app
from flask_wtf import FlaskForm
from wtforms import EmailField, PasswordField
from wtforms.validators import InputRequired, StopValidation, ValidationError

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
    """A password as typed: it is never stripped, and never sent back to the page.

    Args:
        label: the name that the page shows.
        check: a further validator. A `validate_<field>` of a form would be lost where a subclass has its own.
        autocomplete: what password managers go by.
    """

    def __init__(self, label: str, check: Any = None, *, autocomplete: str, **kwargs: Any) -> None:
        attributes = {"autocomplete": autocomplete, "autocapitalize": "none", "spellcheck": "false"}
        validators = [InputRequired("Enter a password."), _bounded, *filter(None, [check])]
        super().__init__(label, validators, render_kw=attributes, **kwargs)


class AddressForm(FlaskForm):
    """A form for an address."""

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


def _follows_the_rules(form: FlaskForm, field: PasswordField) -> None:
    try:
        validation.validate_password(field.data or "", form.user, password_validators())
    except validation.ValidationError as error:
        field.errors = [*field.errors, *error.messages]


def _is_the_same(form: FlaskForm, field: PasswordField) -> None:
    """Check that both passwords are the same, in the form that is hashed."""
    first = form.new_password1.data
    if first and prepare(first) != prepare(field.data or ""):
        raise ValidationError("The two passwords are not the same.")


class SetPasswordForm(FlaskForm):
    """A new password, twice (Django's name); all errors are shown together.

    Args:
        user: the account; the rules compare the password with its address.
    """

    new_password1 = PasswordInput("New password", _follows_the_rules, autocomplete="new-password")
    new_password2 = PasswordInput("New password, again", _is_the_same, autocomplete="new-password")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)


def password_validators() -> list[validation.PasswordValidator]:
    """Return the rules for a new password on this site."""
    return default_validators(current_app.config["PASSWORD_MIN_LENGTH"], current_app.config["SITE_NAME"])


def help_texts() -> list[str]:
    """Return the rules in words, in their order."""
    return validation.password_validators_help_texts(password_validators())
