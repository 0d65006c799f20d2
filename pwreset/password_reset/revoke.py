"""The two pages behind an email's "This wasn't me" links.

- PasswordResetCancelView, from the email with a reset link: ends every outstanding link and session of the account
- AccountSecureView, from the notice after a change: also replaces the password, and emails a reset link

They revoke what another person did. Opening them changes nothing, because email scanners follow links.
"""

from typing import ClassVar

from flask import flash, session
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm

from pwreset import accounts, outbox
from pwreset.accounts import events
from pwreset.extensions import db
from pwreset.password_reset.views import RESET_ADDRESS
from pwreset.request_info import current_request_info
from pwreset.web.views import EmailedLinkView


class PasswordResetCancelView(EmailedLinkView):
    """Ends every link that was emailed to the account, and its sessions; the password does not change."""

    template_name = "users/password_reset_cancel.html"
    title = "Cancel password reset"
    form_class = FlaskForm  # a button with its CSRF token
    success_url = "users.login"
    purposes: ClassVar = ("cancel",)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Revoke the links and sessions."""
        accounts.revoke(self.user)
        events.record(events.Kind.CANCELLED, self.user.id, current_request_info())
        db.session.commit()
        flash("Every link we mailed you is useless now, and you are logged out on every device.")
        return super().form_valid(form)


class AccountSecureView(EmailedLinkView):
    """Replaces a password that the owner did not choose, ends every session and link, and emails a reset link.

    If the password stayed valid, the person who set it could log in again and so end the emailed link.
    """

    template_name = "users/account_secure.html"
    title = "Secure your account"
    form_class = FlaskForm  # a button with its CSRF token
    success_url = "password_reset.done"
    purposes: ClassVar = ("notice",)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Revoke password, links and sessions, and request a reset as the form does."""
        info = current_request_info()
        accounts.revoke(self.user, password=True)
        outbox.enqueue(outbox.EmailKind.PASSWORD_RESET, self.user.email, info)
        events.record(events.Kind.SECURED, self.user.id, info)
        db.session.commit()
        flash("Whoever was logged in to your account is logged out, and the old password has ended.")
        session[RESET_ADDRESS] = self.user.email
        return super().form_valid(form)
