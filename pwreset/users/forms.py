"""The forms of an account: log in, and change the password. They look up nothing but the current password."""

from wtforms import BooleanField, PasswordField
from wtforms.validators import StopValidation

from pwreset.web.forms import AddressField, AddressForm, PasswordInput, SetPasswordForm


class LoginForm(AddressForm):
    """Address and password."""

    email = AddressField(autocomplete="username")
    password = PasswordInput("Password", autocomplete="current-password")
    remember = BooleanField("Remember me on this device")


class PasswordChangeForm(SetPasswordForm):
    """The old password and a new one (Django's names)."""

    old_password = PasswordInput("Old password", autocomplete="current-password")

    def validate_old_password(self, field: PasswordField) -> None:
        """Check the current password."""
        if not self.user.check_password(field.data or ""):
            raise StopValidation("Your old password was entered incorrectly. Please enter it again.")
