"""The forms of an account: log in, and change the password. They check nothing in the database but the old password."""

from flask_wtf import FlaskForm
from wtforms import BooleanField, PasswordField
from wtforms.validators import StopValidation

from pwreset.web.forms import AddressField, AddressForm, PasswordInput, SetPasswordForm


class LoginForm(AddressForm):
    """Address and password."""

    email = AddressField(autocomplete="username")
    password = PasswordInput("Password", autocomplete="current-password")
    remember = BooleanField("Remember me on this device")


def _is_current_password(form: FlaskForm, field: PasswordField) -> None:
    if not form.user.check_password(field.data or ""):
        raise StopValidation("Your old password was entered incorrectly. Please enter it again.")


class PasswordChangeForm(SetPasswordForm):
    """The old password and a new one (Django's names)."""

    old_password = PasswordInput("Old password", _is_current_password, autocomplete="current-password")
