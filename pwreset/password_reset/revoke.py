"""The two pages that say "This wasn't me".

- PasswordResetCancelView, from the mail with a link: ends every outstanding link of the account, and every session
- AccountSecureView, from the notice after a change: ends the password too, and mails a reset

They decide what the owner of the mail account can take back, whatever somebody else did first. Opening them changes
nothing: mail scanners follow links.
"""

from typing import ClassVar

from flask import flash, session
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm

from pwreset import accounts, outbox
from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.extensions import db
from pwreset.password_reset.views import RESET_ADDRESS
from pwreset.request_info import current_request_info
from pwreset.web.forms import EmptyForm
from pwreset.web.views import EmailedLinkView


class PasswordResetCancelView(EmailedLinkView):
    """Makes every link useless that was mailed to the account, and ends its sessions; the password stays as it is."""

    template_name = "users/password_reset_cancel.html"
    title = "Cancel password reset"
    form_class = EmptyForm
    success_url = "users.login"
    _purposes: ClassVar = ("cancel",)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """End what there is."""
        accounts.revoke(self.user)
        events.record(Kind.CANCELLED, self.user.id, current_request_info())
        db.session.commit()
        flash("Every link we mailed you is useless now, and you are logged out on every device.")
        return self.go_to_success_url()


class AccountSecureView(EmailedLinkView):
    """Ends a password that its owner did not choose, with every session and link, and mails a link for a new one.

    Were the password to live on, whoever set it could log in again, and end the mailed link by that.
    """

    template_name = "users/account_secure.html"
    title = "Secure your account"
    form_class = EmptyForm
    success_url = "password_reset.done"
    _purposes: ClassVar = ("notice",)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """End what there is, and ask for a reset as the form does."""
        client = current_request_info()
        accounts.revoke(self.user, password=True)
        outbox.enqueue("password_reset", self.user.email, client)
        events.record(Kind.SECURED, self.user.id, client)
        db.session.commit()
        flash("Whoever was logged in to your account is logged out, and the old password has ended.")
        session[RESET_ADDRESS] = self.user.email
        return self.go_to_success_url()
