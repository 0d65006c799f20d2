"""Fields that several forms share, with the attributes browsers and password managers go by.

Decides syntax only: no field looks anything up, since what a form says must not depend on who has an account.
"""

from typing import Any

from flask_wtf import FlaskForm
from wtforms import EmailField, PasswordField, ValidationError
from wtforms.validators import InputRequired

from pwreset import addresses
from pwreset.passwords import MAX_LENGTH

# As typed, in code points: composed (NFC) it may be a quarter as long, and the rules measure that.
LONGEST_TYPED = 4 * MAX_LENGTH
ASKED_AGAIN = "You asked again. Another mail can take a minute."  # said whoever has an account


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


class AddressForm(FlaskForm):
    """An address, and nothing else."""

    email = AddressField()

    @property
    def address(self) -> str:
        """The address in its stored form, once the form is valid."""
        return self.email.data or ""


class EmptyForm(FlaskForm):
    """A button, and the CSRF token that goes with it."""


def _normalized(_form: FlaskForm, field: EmailField) -> None:
    try:
        field.data = addresses.normalize(field.data or "")
    except addresses.AddressError as error:
        raise ValidationError(str(error)) from None


def _bounded(_form: FlaskForm, field: PasswordField) -> None:
    if len(field.data or "") > LONGEST_TYPED:
        message = f"A password has at most {MAX_LENGTH:,} characters."
        raise ValidationError(message)
