"""The pages of an account.

Decides who may see which page, and which page follows. `accounts` changes accounts; emails are only requested here,
never sent.
"""

from flask import abort, current_app, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required
from flask_wtf import FlaskForm

from pwreset import accounts, outbox
from pwreset.accounts import events, login_throttle, sessions
from pwreset.extensions import db
from pwreset.models import User
from pwreset.request_info import current_request_info
from pwreset.users.forms import LoginForm, PasswordChangeForm
from pwreset.web.forms import REQUESTED_AGAIN, AddressForm, help_texts

REGISTRATION_ADDRESS = "_registration_address"
LONGEST_NEXT = 2000  # characters; it goes into a header, whose length proxies limit


def home() -> ResponseReturnValue:
    """Show the start page."""
    return render_template("users/home.html", title="Welcome")


def register() -> ResponseReturnValue:
    """Accept an address; the worker looks up later whether it has an account. The emailed link proves the address."""
    if not current_app.config["REGISTRATION_OPEN"]:
        abort(404)
    if current_user.is_authenticated:
        return redirect(url_for("users.account"))
    form = AddressForm()
    if not form.validate_on_submit():
        return render_template("users/register.html", title="Register", form=form)
    outbox.enqueue(outbox.EmailKind.REGISTRATION, form.address, current_request_info())
    db.session.commit()
    if session.get(REGISTRATION_ADDRESS) == form.address:
        flash(REQUESTED_AGAIN)
    session[REGISTRATION_ADDRESS] = form.address
    return redirect(url_for("users.register_done"))


def register_done() -> ResponseReturnValue:
    """Show the same page for a new and a known address."""
    address = session.get(REGISTRATION_ADDRESS)
    form = AddressForm(email=address)
    return render_template("users/register_done.html", title="Registration: check your mail", email=address, form=form)


def login() -> ResponseReturnValue:
    """Log in with address and password, and replace the session of this browser; one message for every error."""
    target = safe_next(request.values.get("next"))
    if current_user.is_authenticated and request.method != "POST":
        return redirect(target or url_for("users.account"))
    form = LoginForm()
    if form.validate_on_submit():
        user = accounts.authenticate(form.address, form.password.data or "", current_request_info())
        session_id = user.get_id() if user else None
        db.session.commit()
        if session_id is not None:
            sessions.sign_in(session_id, remember=form.remember.data)
            return redirect(target or url_for("users.account"))
        form.form_errors.append(
            "The email address and password do not match an account here. Check both and try again."
        )
    return render_template("users/login.html", title="Log in", form=form, next=target)


def logout() -> ResponseReturnValue:
    """Show a button on GET, which changes nothing; log out on POST."""
    if request.method != "POST":
        if not current_user.is_authenticated:
            return redirect(url_for("users.home"))
        return render_template("users/logout.html", title="Log out", form=FlaskForm())
    sessions.sign_out()
    flash("You have been logged out.")
    return redirect(url_for("users.home"))


@login_required
def account() -> ResponseReturnValue:
    """Show the account and its recent security events."""
    newest = events.latest(current_user)
    return render_template("users/account.html", title="Your account", user=current_user, events=newest)


def sign_out_everywhere() -> ResponseReturnValue:
    """End every session of the account, including this one."""
    if not current_user.is_authenticated:
        # login_required would return here with a GET after the login, and there is no such page.
        return redirect(url_for("users.login", next=url_for("users.account")))
    accounts.revoke_sessions(current_user)
    events.record(events.Kind.SIGNED_OUT_EVERYWHERE, current_user.id, current_request_info())
    db.session.commit()
    session.clear()
    flash("You have been signed out on every device.")
    return redirect(url_for("users.login"))


@login_required
def password_change() -> ResponseReturnValue:
    """Change the password: this session continues, all others end. A wrong old password counts as a failed login."""
    user = current_user._get_current_object()  # noqa: SLF001 (Flask-Login's way to the account itself)
    form = PasswordChangeForm(user=user)
    if form.is_submitted():
        login_throttle.count_attempt(user.email, current_request_info().address)
    if form.validate_on_submit():
        changed = change_password(user, form.new_password1.data or "")
        return redirect(url_for("users.password_change_done" if changed else "users.login"))
    if form.is_submitted():
        _record_old_password(form, user)
    context = {"form": form, "help_texts": help_texts(), "user": user}
    return render_template("users/password_change.html", title="Password change", **context)


@login_required
def password_change_done() -> ResponseReturnValue:
    """Show that the password was changed."""
    return render_template("users/password_change_done.html", title="Password change successful")


def well_known_change_password() -> ResponseReturnValue:
    """Redirect password managers to the page (W3C: A Well-Known URL for Changing Passwords)."""
    return redirect(url_for("users.password_change"))


def change_password(user: User, password: str) -> bool:
    """Write password, notice and event in one transaction, and renew this session.

    Returns:
        False if another request was first; then nothing has changed.
    """
    remember = session.permanent
    if not accounts.set_password(user, password):
        db.session.rollback()
        return False
    outbox.enqueue(outbox.EmailKind.PASSWORD_CHANGED, user.email, current_request_info())
    events.record(events.Kind.CHANGED, user.id, current_request_info())
    session_id = user.get_id()
    db.session.commit()
    sessions.sign_in(session_id, remember=remember)
    return True


def _record_old_password(form: PasswordChangeForm, user: User) -> None:
    info = current_request_info()
    if form.old_password.errors:
        events.record(events.Kind.LOGIN_FAILED, user.id, info)
    else:
        login_throttle.clear_network(user.email, info.address)
    db.session.commit()


def safe_next(target: str | None) -> str | None:
    """Return the path to show after a login if it belongs to this site, else None.

    Only a plain absolute path is accepted: browsers read `//`, a backslash or a control character as the start of
    another host.
    """
    if not target or not target.startswith("/") or target.startswith("//") or len(target) > LONGEST_NEXT:
        return None
    plain = target.isascii() and target.isprintable() and "\\" not in target
    return target if plain else None
