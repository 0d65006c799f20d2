"""What these tests share: views with a team's own options, links, and what a page or the database says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask
from sqlalchemy import select

from pwreset import accounts
from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.password_reset.views import PasswordResetConfirmView
from tests.conftest import PostRoom, Visitor, csrf_token, link_in

Mount = Callable[..., None]
DEAD = "This link is no longer valid."
EXPIRED = "This link has expired."
SET_PASSWORD = "/password-reset-confirm/MQ/set-password"


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
def link(alice: int, post_room: PostRoom) -> str:
    """Return the link of a reset that alice asked for."""
    return post_room.reset_link()


@pytest.fixture
def form_page(visitor: Visitor, link: str) -> Any:
    """Return the page behind a valid link."""
    return visitor.open_link(link)


@pytest.fixture
def invitation(visitor: Visitor, post_room: PostRoom) -> str:
    """Return the link of a registration of new@example.com."""
    visitor.submit("/register/", email="new@example.com")
    return link_in(post_room.deliver_one())


def custom(link: str) -> str:
    """Return a mailed link as it would lead to the view that `mount` added."""
    return link.replace("/password-reset-confirm/", "/custom/")


def token_of(link: str) -> str:
    """Return the last part of a link."""
    return link.rpartition("/")[2]


def main_of(page: Any) -> str:
    """Return a page without what every page has."""
    return re.search(r"(?s)<main.*</main>", page.text)[0]


def complaints(page: Any) -> dict[str, list[str]]:
    """Return what the page says against each field."""
    lists = re.findall(r'(?s)<ul class="errors" id="(\w+)_error">(.*?)</ul>', page.text)
    return {field: re.findall(r"<li>(.*?)</li>", items) for field, items in lists}


def send(visitor: Visitor, page: Any, **fields: Any) -> Any:
    """Send the form of a page with these fields."""
    return visitor.client.post(page.request.path, data={"csrf_token": csrf_token(page), **fields})


def events_of(app: Flask) -> list[str]:
    """Return the kinds of the events so far, oldest first."""
    with app.app_context():
        return list(db.session.scalars(select(SecurityEvent.kind).order_by(SecurityEvent.id)))
