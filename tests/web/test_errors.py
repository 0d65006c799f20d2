"""Error pages: the database is out of reach, or a view fails."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError

from pwreset.extensions import db
from tests.support.app import MakeApp, Visitor, add_user
from tests.support.databases import Database, SQLite
from tests.support.pages import csrf_token
from tests.support.passwords import PASSWORD

PUBLIC_PAGES = [
    "/",
    "/login/",
    "/register/",
    "/register/done/",
    "/password-reset/",
    "/password-reset/done/",
    "/password-reset-complete/",
]


@pytest.fixture(params=["gone", "never there"])
def without_database(request: pytest.FixtureRequest, make_app: MakeApp, database: Database, nowhere: str) -> Flask:
    """Return an application without its database, in two ways."""
    if request.param == "never there":
        return make_app(DATABASE_URL=nowhere)
    app = make_app()
    add_user(app, "alice@example.com", PASSWORD)
    make_unreachable(app, database)
    return app


def make_unreachable(app: Flask, database: Database) -> None:
    """Let the database be gone, at the next use of a connection."""
    if isinstance(database, SQLite):  # an open file lives on without its name
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
    database.make_unreachable()


@pytest.mark.parametrize("path", PUBLIC_PAGES)
def test_pages_without_an_account_need_no_database(without_database: Flask, path: str) -> None:
    assert Visitor(without_database).get(path).status_code == 200


def test_the_link_page_says_that_it_is_not_available(without_database: Flask) -> None:
    page = Visitor(without_database).get("/password-reset-confirm/MQ/aaaaaa-bbbb")
    assert page.status_code == 503
    assert "no longer valid" not in page.text


@pytest.mark.parametrize("path", ["/password-reset/", "/register/", "/login/"])
def test_a_form_gets_the_same_503_for_known_and_unknown(without_database: Flask, path: str) -> None:
    pages = []
    for email in ("alice@example.com", "nobody@example.com"):
        answer = Visitor(without_database).submit(path, email=email, password=PASSWORD)
        pages.append((answer.status_code, answer.text, answer.headers["Retry-After"]))
    assert pages[0] == pages[1]
    assert pages[0][0] == 503
    assert "Try again in a moment." in pages[0][1]


@pytest.mark.parametrize("path", ["/password-reset/", "/register/"])
def test_what_could_not_be_kept_is_not_confirmed_later(without_database: Flask, path: str) -> None:
    visitor = Visitor(without_database)
    visitor.submit(path, email="alice@example.com")
    assert "alice@example.com" not in visitor.get(f"{path}done/").text


def test_the_health_check_says_so(without_database: Flask) -> None:
    answer = without_database.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == (503, {"status": "unavailable"})


def test_the_page_tells_nothing_of_the_database(without_database: Flask) -> None:
    page = Visitor(without_database).request_reset().text
    words = "sqlite", "SQL", "nowhere", "nothing", "pwreset.db", "pwreset_test", "Operational", "psycopg"
    assert [word for word in words if word in page] == []


@pytest.mark.parametrize(
    "path", ["/", "/account/", "/login/", "/password-change/", "/nothing-here", "/password-reset/done/"]
)
def test_who_is_logged_in_sees_the_503_page(
    app: Flask, alice: int, visitor: Visitor, database: Database, path: str
) -> None:
    visitor.log_in()
    make_unreachable(app, database)
    page = visitor.get(path)
    assert page.status_code == 503
    assert "Try again in a moment." in page.text


def test_the_application_recovers_with_its_database(app: Flask, alice: int, database: Database) -> None:
    make_unreachable(app, database)
    assert Visitor(app).request_reset().status_code == 503
    database.make_reachable()
    assert Visitor(app).request_reset().status_code == 302


def test_a_database_without_tables_is_not_available(make_app: MakeApp, empty_database: Database) -> None:
    app = make_app(**empty_database.settings)
    assert Visitor(app).request_reset().status_code == 503


# --- a view that breaks


def crash() -> str:
    """Fail as a view with a mistake in it does."""
    msg = "the secret cause"
    raise RuntimeError(msg)


def lose_database() -> str:
    raise OperationalError("SELECT secret", {}, Exception("gone"))


@pytest.fixture
def visit(make_app: MakeApp) -> Callable[[Callable[[], str]], Any]:
    """Return a function that opens a page of that view."""

    def visit(view: Callable[[], str]) -> Any:
        app = make_app(PROPAGATE_EXCEPTIONS=False)
        app.add_url_rule("/crash/", view_func=view)
        add_user(app, "alice@example.com", PASSWORD)
        visitor = Visitor(app)
        visitor.log_in()
        return visitor.get("/crash/")

    return visit


def test_a_view_that_breaks_gives_the_500_page(visit: Callable[..., Any]) -> None:
    page = visit(crash)
    assert page.status_code == 500
    assert "The mistake is ours" in page.text
    assert "the secret cause" not in page.text


def test_the_500_page_carries_the_security_headers(visit: Callable[..., Any]) -> None:
    headers = visit(crash).headers
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


def test_the_500_page_does_not_ask_who_is_logged_in(visit: Callable[..., Any]) -> None:
    page = visit(crash).text
    assert ("/logout/" in page, "/login/" in page) == (False, False)


def test_the_mistake_is_logged(visit: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    visit(crash)
    assert "the secret cause" in caplog.text


def test_a_database_lost_within_a_view_gives_the_503_page(visit: Callable[..., Any]) -> None:
    page = visit(lose_database)
    assert page.status_code == 503
    assert "SELECT secret" not in page.text


@pytest.mark.parametrize("code", [400, 404, 405, 413])
def test_every_error_is_a_page_of_the_site(visitor: Visitor, code: int) -> None:
    answers = {
        400: lambda: visitor.client.post("/login/"),
        404: lambda: visitor.get("/nothing"),
        405: lambda: visitor.client.put("/login/"),
        413: lambda: visitor.client.post("/login/", data={"email": "x" * 70000}),
    }
    page = answers[code]()
    assert page.status_code == code
    assert f"Error {code}" in page.text
    assert '<link rel="stylesheet"' in page.text


def test_an_expired_form_keeps_nobody_from_a_new_one(visitor: Visitor) -> None:
    visitor.client.post("/login/")
    assert csrf_token(visitor.get("/login/"))
