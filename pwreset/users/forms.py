"""The forms of an account: log in, register, change the password. They look up nothing but the current password."""

from wtforms import BooleanField, PasswordField
from wtforms.validators import StopValidation

from pwreset.web.forms import AddressField, AddressForm, PasswordInput, SetPasswordForm


class RegistrationForm(AddressForm):
    """An address alone: the password is chosen through the emailed link, which proves the address."""


class LoginForm(AddressForm):
    """Address and password."""

    email = AddressField(render_kw={"autocomplete": "username"})
    password = PasswordInput("Password", autocomplete="current-password")
    remember = BooleanField("Remember me on this device")


class PasswordChangeForm(SetPasswordForm):
    """The old password and a new one (Django's names)."""

    old_password = PasswordInput("Old password", autocomplete="current-password")

    def validate_old_password(self, field: PasswordField) -> None:
        """Check the current password."""
        if not self.user.check_password(field.data or ""):
            raise StopValidation("Your old password was entered incorrectly. Please enter it again.")
