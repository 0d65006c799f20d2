"""Fields that several forms share, with the attributes browsers and password managers go by.

Decides syntax only: no field looks anything up, since what a form says must not depend on who has an account.
"""

from typing import Any

from flask_wtf import FlaskForm
from wtforms import EmailField, PasswordField, ValidationError
from wtforms.validators import InputRequired

from pwreset import addresses

PASSWORD_MAXIMUM = 1024  # code points


class AddressField(EmailField):
    """An e-mail address; after validation `field.data` is in its stored form."""

    def __init__(self, label: str = "Email address", **kwargs: Any) -> None:
        attributes = {"autocomplete": "email", "inputmode": "email", "autocapitalize": "none", "spellcheck": "false"}
        attributes |= {"maxlength": str(addresses.MAXIMUM_LENGTH)} | kwargs.pop("render_kw", {})
        super().__init__(
            label, [InputRequired("Enter your email address."), _normalized], render_kw=attributes, **kwargs
        )


class PasswordInput(PasswordField):
    """A password, kept as typed: never stripped, never sent back to the page."""

    def __init__(self, label: str, *, autocomplete: str, **kwargs: Any) -> None:
        attributes = {"autocomplete": autocomplete, "autocapitalize": "none", "spellcheck": "false"}
        super().__init__(label, [InputRequired("Enter a password."), _bounded], render_kw=attributes, **kwargs)


class EmptyForm(FlaskForm):
    """A button, and the CSRF token that goes with it."""


def _normalized(_form: FlaskForm, field: EmailField) -> None:
    try:
        field.data = addresses.normalize(field.data or "")
    except addresses.AddressError as error:
        raise ValidationError(str(error)) from None


def _bounded(_form: FlaskForm, field: PasswordField) -> None:
    if len(field.data or "") > PASSWORD_MAXIMUM:
        message = f"A password has at most {PASSWORD_MAXIMUM:,} characters."
        raise ValidationError(message)
