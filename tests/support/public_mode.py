"""An application in public mode in the test's own process, and a browser that visits it at its public host."""

from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from tests.support.app import Visitor
from tests.support.settings import PUBLIC, RELAY

PUBLIC_HOST = "accounts.example.com"
PUBLIC_URL = f"https://{PUBLIC_HOST}"
IN_PUBLIC = PUBLIC | RELAY


class PublicClient(FlaskClient):
    """A browser at the public host."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, **{"base_url": PUBLIC_URL, **kwargs})


def public_visitor(app: Flask) -> Visitor:
    """Return somebody whose browser is at the public host."""
    return Visitor(app, PublicClient(app, app.response_class))


def get(app: Flask, path: str, host: str, **kwargs: Any) -> Any:
    """Open a path under a Host header."""
    return app.test_client().get(path, headers={"Host": host}, **kwargs)
