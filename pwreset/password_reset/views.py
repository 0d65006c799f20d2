"""Django's four class-based views, with Django's names and options.

- PasswordResetView takes an address and adds a row to the outbox, whether or not it has an account
- PasswordResetDoneView asks the visitor to check their email
- PasswordResetConfirmView checks the link and takes the new password
- PasswordResetCompleteView confirms that the password is set

They never send, render or wait for an email. The first never looks up an account, so its status, body and response time
can't reveal who has one. Django's counterpart: `django/contrib/auth/views.py`.
"""

import json
from collections.abc import Callable
from typing import Any, ClassVar

from flask import flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm

from pwreset import accounts, outbox
from pwreset.accounts import events, sessions
from pwreset.extensions import db
from pwreset.monitoring import counters
from pwreset.request_info import current_request_info
from pwreset.web.forms import REQUESTED_AGAIN, PasswordResetForm, SetPasswordForm, help_texts
from pwreset.web.views import EmailedLinkView, FormView, TemplateView

INTERNAL_RESET_SESSION_TOKEN = "_password_reset_token"  # noqa: S105 (Django's name for the session's key)
RESET_ADDRESS = "_password_reset_address"


class PasswordResetView(FormView):
    """Accepts an address. The options for the email are stored in the row, because it is written later."""

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
    def as_view(cls, name: str, *class_args: Any, **class_kwargs: Any) -> Callable[..., Any]:
        """Return a view function; raise TypeError at once for an extra context that can't be stored in the row."""
        try:
            json.dumps({**(class_kwargs.get("extra_email_context") or {})})
        except (TypeError, ValueError):
            msg = "extra_email_context must be a dict of JSON values, since the email is written later"
            raise TypeError(msg) from None
        return super().as_view(name, *class_args, **class_kwargs)

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Add the row, and do nothing else: no lookup, no hash, no mail server."""
        address = form["email"].data
        outbox.enqueue(outbox.EmailKind.PASSWORD_RESET, address, current_request_info(), self._email_options())
        db.session.commit()
        if session.get(RESET_ADDRESS) == address:
            flash(REQUESTED_AGAIN)
        session[RESET_ADDRESS] = address
        return super().form_valid(form)

    def _email_options(self) -> dict[str, Any]:
        return {
            "subject_template_name": self.subject_template_name,
            "email_template_name": self.email_template_name,
            "html_email_template_name": self.html_email_template_name,
            "from_email": self.from_email,
            "extra_email_context": self.extra_email_context or {},
        }


class PasswordResetDoneView(TemplateView):
    """The same page for every address. It shows the address typed in this browser, so that visitors notice a typo."""

    template_name = "users/password_reset_done.html"
    title = "Password reset sent"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add the address."""
        return super().get_context_data(email=session.get(RESET_ADDRESS), **context)


class PasswordResetConfirmView(EmailedLinkView):
    """Opens with a valid link, moves its token out of the address bar, and sets the password once.

    Options besides Django's common ones: `post_reset_login`, `reset_url_token`.
    """

    template_name = "users/password_reset_confirm.html"
    title = "Enter new password"
    dead_title = "Password reset unsuccessful"
    invite_title = "Choose your password"
    form_class = SetPasswordForm
    success_url = "password_reset.complete"
    post_reset_login = False
    reset_url_token = "set-password"  # noqa: S105 (Django's: it replaces the token in the path)
    purposes: ClassVar = ("reset", "invite")

    def dispatch_request(self, *, uidb64: str, token: str) -> ResponseReturnValue:  # type: ignore[override]
        """Check the link; then redirect once, show the form, or set the password. The rule must name both arguments."""
        redirected = token == self.reset_url_token
        token = session.get(INTERNAL_RESET_SESSION_TOKEN, "") if redirected else token
        self.check_link(uidb64, token)
        self.reopen = redirected and not token  # the page after the redirect, in a browser that lost its session
        return self._hide_token(uidb64, token) if self.validlink and not redirected else self.show()

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Set the password unless another request was first, and sign out the user of this browser."""
        if not accounts.set_password(self.user, form["new_password1"].data):
            db.session.rollback()
            self.validlink = False
            return self.show()
        session_id = self._record()
        # Not when the link is opened: otherwise any valid link could log a visitor out.
        sessions.sign_out()
        if session_id:
            sessions.sign_in(session_id, remember=False)
        return super().form_valid(form)

    def get_form(self) -> FlaskForm:
        """Return the form for the link's account."""
        return self.form_class(user=self.user)

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add the password rules, and whether this is an account's first password."""
        invite = self.purpose == "invite"
        title = {"title": self.invite_title} if invite and self.validlink else {}
        return super().get_context_data(help_texts=help_texts(), invite=invite, **title, **context)

    def _hide_token(self, uidb64: str, token: str) -> ResponseReturnValue:
        # The token leaves the path, and with it the address bar, the history and every Referer.
        session[INTERNAL_RESET_SESSION_TOKEN] = token
        events.record(events.Kind.LINK_OPENED, self.user.id, current_request_info())
        db.session.commit()
        path = url_for(request.endpoint or "", uidb64=uidb64, token=self.reset_url_token)
        return redirect(path + "/" * request.path.endswith("/"))

    def _record(self) -> str | None:
        """Add notice, event and counter to the transaction of the new password, and commit.

        Returns:
            With `post_reset_login`, the session id of the account. It is read in this transaction; if it were read
            later, it could already be that of another request's new password.
        """
        if self.purpose == "reset":
            outbox.enqueue(outbox.EmailKind.PASSWORD_CHANGED, self.user.email, current_request_info())
        events.record(events.Kind.COMPLETED, self.user.id, current_request_info())
        session_id = None
        if self.post_reset_login and accounts.record_login(self.user):
            events.record(events.Kind.LOGGED_IN, self.user.id, current_request_info())
            session_id = self.user.get_id()
        counters.add(counters.Counted.COMPLETED, self.purpose)
        db.session.commit()
        return session_id


class PasswordResetCompleteView(TemplateView):
    """Confirms that the password is set. It does not log the visitor in."""

    template_name = "users/password_reset_complete.html"
    title = "Password reset complete"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add the URL of the login page."""
        return super().get_context_data(login_url=url_for("users.login"), **context)
