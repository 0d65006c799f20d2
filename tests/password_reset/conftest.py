"""Views with a team's own options, and links of a reset and of an invitation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask

from pwreset import accounts
from pwreset.extensions import db
from pwreset.models import User
from pwreset.password_reset.views import PasswordResetConfirmView
from tests.support.app import Inbox, Visitor
from tests.support.pages import link_in

Mount = Callable[..., None]


@pytest.fixture
def mount(app: Flask, tmp_path: Path) -> Mount:
    """Return a function that adds a view with options at `/custom/`, and templates by their names."""

    def add(view: type[Any], templates: dict[str, str] | None = None, **options: Any) -> None:
        folder = tmp_path / "templates"
        for name, text in (templates or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        bp = Blueprint("custom", __name__, template_folder=str(folder))
        path = "/custom/<uidb64>/<token>" if issubclass(view, PasswordResetConfirmView) else "/custom/"
        bp.add_url_rule(path, view_func=view.as_view("page", **options))
        app.register_blueprint(bp)

    return add


@pytest.fixture
def stored(app: Flask) -> Callable[[int], User]:
    """Return a function that reads an account as the database has it now."""

    def read(user_id: int) -> User:
        with app.app_context():
            user = accounts.find_by_id(user_id)
            assert user is not None
            db.session.expunge(user)
            return user

    return read


@pytest.fixture
def link(alice: int, inbox: Inbox) -> str:
    """Return the link of a reset that alice asked for."""
    return inbox.reset_link()


@pytest.fixture
def form_page(visitor: Visitor, link: str) -> Any:
    """Return the page behind a valid link."""
    return visitor.open_link(link)


@pytest.fixture
def invitation(visitor: Visitor, inbox: Inbox) -> str:
    """Return the link of a registration of new@example.com."""
    visitor.submit("/register/", email="new@example.com")
    return link_in(inbox.deliver_one())
