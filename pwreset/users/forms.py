"""The forms of an account: log in, register, change the password. They look up nothing but the current password."""

from typing import Any

from wtforms import BooleanField

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

    def validate(self, extra_validators: Any = None) -> bool:
        """Check the rules for the new password and the old password, and show all errors together."""
        checks = super().validate(extra_validators), self._old_password_is_right()
        return all(checks)

    def _old_password_is_right(self) -> bool:
        if self.old_password.errors or not self.old_password.data:
            return False
        if not self.user.check_password(self.old_password.data):
            self.old_password.errors = ["Your old password was entered incorrectly. Please enter it again."]
            return False
        return True
