"""Every form of the site, open in a browser and filled in, as the attacks on forms need it.

It decides what each form would change. It asserts nothing and never imports the application.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from tests.support.links import cancel_link, notice_link
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.servers import Page
from tests.support.site import Account, Person, Site

NEW = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
Row = tuple[Any, ...]


@dataclass
class Form:
    """A form that is open in somebody's browser, filled in and not yet sent.

    Args:
        person: whose browser.
        path: where it goes.
        fields: what it sends, but for the token.
        token: which CSRF token belongs to it.
        email: whom it is about.
    """

    person: Person
    path: str
    token: str
    email: str
    fields: dict[str, str] = field(default_factory=dict)

    def send(self, token: str | None, headers: dict[str, str] | None = None, **more: str) -> Page:
        """Send it with this CSRF token; None leaves it out."""
        fields = {**self.fields, **more} | ({} if token is None else {"csrf_token": token})
        return self.person.post(self.path, fields, headers)

    def state(self) -> list[Row]:
        """Return what it could change: the account, what happened to it, email on its way, and who is signed in."""
        site = self.person.site
        columns = "id, password_hash, stamp, is_active, last_login"
        account = site.query(f"SELECT {columns} FROM users WHERE email = ?", self.email)  # noqa: S608 (ours)
        number = account[0][0] if account else 0
        happened = site.query("SELECT count(*) FROM security_events WHERE user_id = ?", number)
        mails = site.query("SELECT count(*) FROM outbox WHERE address = ?", self.email)
        return [*account, *happened, *mails, (len(site.emails_to(self.email)), self.person.is_signed_in())]


def opened(person: Person, page: str, about: str, **fields: str) -> Form:
    """Open a page and fill in its form."""
    form = person.get(page)
    return Form(person, form.path, csrf_token(form), about, fields)


def register(site: Site) -> Form:
    email = f"somebody.{token_hex(4)}@example.com"
    return opened(site.person(), "/register/", email, email=email)


def reset(site: Site) -> Form:
    account = site.account()
    return opened(site.person(), "/password-reset/", account.email, email=account.email)


def login(site: Site) -> Form:
    account = site.account()
    return opened(site.person(), "/login/", account.email, email=account.email, password=PASSWORD)


def in_account(site: Site) -> tuple[Person, Account]:
    account, owner = site.account(), site.person()
    owner.log_in(account)
    return owner, account


def logout(site: Site) -> Form:
    owner, account = in_account(site)
    return opened(owner, "/logout/", account.email)


def sign_out_everywhere(site: Site) -> Form:
    owner, account = in_account(site)
    return Form(owner, "/account/sign-out-everywhere/", csrf_token(owner.get("/account/")), account.email)


def password_change(site: Site) -> Form:
    owner, account = in_account(site)
    return opened(owner, "/password-change/", account.email, old_password=PASSWORD, **NEW)


def confirm(site: Site) -> Form:
    account = site.account()
    return opened(site.person(), path_of(site.reset_link(account)), account.email, **NEW)


def cancel(site: Site) -> Form:
    account = site.account()
    return opened(site.person(), str(cancel_link(site, account)), account.email)


def secure(site: Site) -> Form:
    account = site.account()
    return opened(site.person(), str(notice_link(site, account)), account.email)


FORMS: list[Callable[[Site], Form]] = [
    register,
    reset,
    login,
    logout,
    sign_out_everywhere,
    password_change,
    confirm,
    cancel,
    secure,
]
