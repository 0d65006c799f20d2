"""The pages of a password reset: their paths and sentences, and what a page or the database shows."""

import re
from typing import Any

from flask import Flask
from sqlalchemy import select

from pwreset.extensions import db
from pwreset.models import SecurityEvent
from tests.support.app import Visitor
from tests.support.pages import csrf_token

DEAD = "This link is no longer valid."


EXPIRED = "This link has expired."


SET_PASSWORD = "/password-reset-confirm/MQ/set-password"


def custom(link: str) -> str:
    """Return an emailed link as it would lead to the view that `mount` added."""
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
