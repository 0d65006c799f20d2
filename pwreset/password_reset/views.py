"""Django's four class-based views, with Django's names and options.

- PasswordResetView takes an address and puts a row into the outbox, whoever has it
- PasswordResetDoneView says where to look for the mail
- PasswordResetConfirmView checks the link and takes the new password
- PasswordResetCompleteView says that it is set

They decide what a link may do and when. They never send, render or wait for mail, and the first never looks an account
up: its status, body and time can't tell who has one. Django's counterpart: `django/contrib/auth/views.py`.
"""

import json
from typing import Any, ClassVar

from flask import flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm

from pwreset import accounts, outbox
from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.accounts.sessions import sign_in, sign_out
from pwreset.accounts.tokens import TokenError, TokenExpired
from pwreset.extensions import db
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from pwreset.request_info import current_request_info
from pwreset.web.forms import REQUESTED_AGAIN, PasswordResetForm, SetPasswordForm, help_texts
from pwreset.web.views import EmailedLinkView, FormView, TemplateView

INTERNAL_RESET_SESSION_TOKEN = "_password_reset_token"  # noqa: S105 (Django's name for the session's key)
RESET_ADDRESS = "_password_reset_address"


class PasswordResetView(FormView):
    """Takes an address. What the mail needs to know travels with the row, since it is written later."""

    template_name = "users/password_reset.html"
    title = "Password reset"
    form_class = PasswordResetForm
    success_url = "password_reset.done"
    email_template_name = "mail/password_reset/body.txt"
    subject_template_name = "mail/password_reset/subject.txt"
    html_email_template_name: str | None = "mail/password_reset/body.html"
    from_email: str | None = None
    extra_email_context: dict[str, Any] | None = None

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Refuse an extra context that could not travel with the row."""
        msg = "extra_email_context must be a dict of JSON values, since the mail is written later"
        context = options.get("extra_email_context") or {}
        try:
            json.dumps(context)
        except (TypeError, ValueError):
            raise TypeError(msg) from None
        if not isinstance(context, dict):
            raise TypeError(msg)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Add the row, and nothing else: no lookup, no hash, no mail server."""
        address = form["email"].data
        outbox.enqueue("password_reset", address, current_request_info(), self._mail_options())
        db.session.commit()
        if session.get(RESET_ADDRESS) == address:
            flash(REQUESTED_AGAIN)
        session[RESET_ADDRESS] = address
        return self.go_to_success_url()

    def _mail_options(self) -> dict[str, Any]:
        return {
            "subject_template_name": self.subject_template_name,
            "email_template_name": self.email_template_name,
            "html_email_template_name": self.html_email_template_name,
            "from_email": self.from_email,
            "extra_email_context": self.extra_email_context or {},
        }


class PasswordResetDoneView(TemplateView):
    """The same page for every address; it repeats the one typed in this browser, where a typing error shows."""

    template_name = "users/password_reset_done.html"
    title = "Password reset sent"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add the address."""
        return super().get_context_data(email=session.get(RESET_ADDRESS), **context)


class PasswordResetConfirmView(EmailedLinkView):
    """Opens with a valid link, moves its token out of the address bar, and sets the password once.

    Options beside Django's common ones: `post_reset_login`, `reset_url_token`.
    """

    template_name = "users/password_reset_confirm.html"
    title = "Enter new password"
    dead_title = "Password reset unsuccessful"
    invite_title = "Choose your password"
    form_class = SetPasswordForm
    success_url = "password_reset.complete"
    post_reset_login = False
    reset_url_token = "set-password"  # noqa: S105 (Django's: what stands in the path instead of the token)
    _purposes: ClassVar = ("reset", "invite")

    def dispatch_request(self, *, uidb64: str, token: str) -> ResponseReturnValue:  # type: ignore[override]
        """Check the link; then redirect once, show the form, or set the password. The rule must name both arguments."""
        redirected = token == self.reset_url_token
        token = session.get(INTERNAL_RESET_SESSION_TOKEN, "") if redirected else token
        try:
            self.open_link(uidb64, token)
        except TokenError as error:
            reopen = redirected and not token  # the page after the redirect, in a browser that lost its session
            return self.dead_link(expired=isinstance(error, TokenExpired), reopen=reopen)
        return self.show_or_submit() if redirected else self._hide_token(token, uidb64)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Set the password unless another request was first, and sign out whoever was signed in here."""
        session_id = self._set_password(form["new_password1"].data)
        if session_id is None:
            return self.dead_link(expired=False)
        # Only now: if the link itself signed people out, any valid link would be a forced logout.
        sign_out()
        if self.post_reset_login:
            sign_in(session_id, remember=False)
        return self.go_to_success_url()

    def get_form(self) -> FlaskForm:
        """Return the form for the link's account."""
        return self.form_class(user=self.user)

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add what the page shows: the account and the rules, or that the link is dead."""
        if self._purpose is None:
            return super().get_context_data(**context)
        invite = self._purpose == "invite"
        shown = {"help_texts": help_texts(), "invite": invite}
        return super().get_context_data(**shown, **context, **({"title": self.invite_title} if invite else {}))

    def _hide_token(self, token: str, uidb64: str) -> ResponseReturnValue:
        # A GET uses nothing up: mail scanners follow links. The token leaves the path, and with it the address bar,
        # the history and every Referer.
        session[INTERNAL_RESET_SESSION_TOKEN] = token
        events.record(Kind.LINK_OPENED, self.user.id, current_request_info())
        db.session.commit()
        path = url_for(request.endpoint or "", uidb64=uidb64, token=self.reset_url_token)
        return redirect(path + "/" * request.path.endswith("/"))

    def _set_password(self, password: str) -> str | None:
        """Write password, notice and events in one transaction; None, and nothing written, when the link just died.

        Returns what a session of the account would hold, as of this transaction: read after it, it could already be
        that of whoever changed the password next.
        """
        if not accounts.set_password(self.user, password):
            db.session.rollback()
            return None
        if self._purpose == "reset":
            outbox.enqueue("password_changed", self.user.email, current_request_info())
        events.record(Kind.COMPLETED, self.user.id, current_request_info())
        if self.post_reset_login and accounts.record_login(self.user):
            events.record(Kind.LOGGED_IN, self.user.id, current_request_info())
        counters.add(Counted.COMPLETED, self._purpose or "")
        session_id = self.user.get_id()
        db.session.commit()
        return session_id


class PasswordResetCompleteView(TemplateView):
    """Says that the password is set; nobody is logged in by it."""

    template_name = "users/password_reset_complete.html"
    title = "Password reset complete"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add where to log in."""
        return super().get_context_data(login_url=url_for("users.login"), **context)
