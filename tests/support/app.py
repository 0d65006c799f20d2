"""An application in the test's own process, the people who visit it with Flask's test client, and its mailbox."""

from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from sqlalchemy import update

from pwreset import accounts, create_app
from pwreset.extensions import db
from pwreset.mail.mailbox import kept_emails
from pwreset.models import OutboxMessage, User
from pwreset.outbox.delivery import deliver_pending
from tests.support.pages import csrf_token, link_in, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD

MakeApp = Callable[..., Flask]


def migrate(folder: Path, **settings: str) -> None:
    """Create the tables."""
    app = create_app({"INSTANCE_PATH": folder, **settings})
    with app.app_context():
        upgrade()
        db.engine.dispose()


def add_user(app: Flask, email: str, password: str | None, *, registered: bool = False) -> int:
    """Add an account, as a command or as a registration does, and return its id."""
    with app.app_context():
        user = accounts.create(email, password, registered=registered)
        assert user is not None
        return user.id


class Visitor:
    """A browser: it keeps cookies, and posts forms with the CSRF token of the page it opened."""

    def __init__(self, app: Flask, client: FlaskClient | None = None) -> None:
        self.client = client or app.test_client()

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.client.get(path, **kwargs)

    def submit(self, path: str, /, at: str | None = None, **fields: str) -> Any:
        """Open a page and send its form (`at`: to another path than the page's)."""
        token = csrf_token(self.get(path))
        return self.client.post(at or path, data={**fields, "csrf_token": token})

    def log_in(self, email: str = "alice@example.com", password: str = PASSWORD, **fields: str) -> Any:
        return self.submit("/login/", email=email, password=password, **fields)

    def log_out(self) -> Any:
        return self.submit("/logout/")

    def request_reset(self, email: str = "alice@example.com") -> Any:
        return self.submit("/password-reset/", email=email)

    def open_link(self, link: str) -> Any:
        """Follow an emailed link to the form, or to the page that says it is not valid."""
        return self.get(path_of(link), follow_redirects=True)

    def choose(self, link: str, password: str = NEW_PASSWORD, again: str | None = None) -> Any:
        """Follow an emailed link and send its form."""
        page = self.get(path_of(link), follow_redirects=True)
        fields = {"new_password1": password, "new_password2": password if again is None else again}
        return self.client.post(page.request.path, data={**fields, "csrf_token": csrf_token(page)})

    def is_signed_in(self) -> bool:
        return self.get("/account/").status_code == 200


class Inbox:
    """Delivers the emails that wait, and reads the mailbox."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def deliver(self) -> tuple[int, str | None]:
        with self.app.app_context():
            return deliver_pending()

    def emails(self) -> list[EmailMessage]:
        """Return the emails in the mailbox, oldest first."""
        with self.app.app_context():
            return [kept.message for kept in reversed(kept_emails())]

    def deliver_one(self) -> EmailMessage:
        """Deliver, and return the one new email; fails where there is none or more than one."""
        before = len(self.emails())
        self.deliver()
        new = self.emails()[before:]
        assert len(new) == 1, f"{len(new)} new emails"
        return new[0]

    def reset_link(self, email: str = "alice@example.com") -> str:
        """Request a reset in a new browser and return the emailed link."""
        self.let_a_minute_pass()
        Visitor(self.app).request_reset(email)
        return link_in(self.deliver_one())

    def let_a_minute_pass(self) -> None:
        """End the cooldown of every account."""
        with self.app.app_context():
            db.session.execute(update(User).values(cooldown_started_at=None))
            db.session.commit()

    def waiting(self) -> int:
        with self.app.app_context():
            return db.session.query(OutboxMessage).count()
