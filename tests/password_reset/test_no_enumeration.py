"""No answer reveals who has an account: neither the work done for it nor its bytes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import event, update

from pwreset.extensions import db
from pwreset.models import User
from tests.support.app import Visitor, add_user
from tests.support.pages import csrf_token
from tests.support.passwords import PASSWORD

KNOWN = "alice@example.com"
OTHERS = {
    "unknown": "erica@example.com",
    "deactivated": "carol@example.com",
    "never_finished": "david@example.com",
    "in_another_spelling": "ALICE@EXAMPLE.COM",
    "signed_in_elsewhere": "fiona@example.com",
    "just_mailed": "grace@example.com",
}
PATHS = {"/password-reset/": "/password-reset/done/", "/register/": "/register/done/"}


@pytest.fixture
def people(app: Flask, inbox) -> None:
    """One account of each sort; their addresses are of one length."""
    for address in (KNOWN, *(OTHERS[name] for name in ("deactivated", "signed_in_elsewhere", "just_mailed"))):
        add_user(app, address, PASSWORD)
    add_user(app, OTHERS["never_finished"], None)
    with app.app_context():
        db.session.execute(update(User).where(User.email == OTHERS["deactivated"]).values(is_active=False))
        db.session.commit()
    assert Visitor(app).log_in(OTHERS["signed_in_elsewhere"]).status_code == 302
    Visitor(app).request_reset(OTHERS["just_mailed"])
    inbox.deliver_one()


@contextmanager
def recorded(app: Flask) -> Iterator[list[str]]:
    """Collect the texts of the statements that reach the database."""
    statements: list[str] = []

    def note(_connection, _cursor, statement: str, _parameters, _context, _many) -> None:
        statements.append(statement)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def asked(app: Flask, path: str, address: str) -> tuple[list[str], int, list[tuple[str, str]], int]:
    """Ask for an email from a browser of its own; return the statements, status, headers and length of the body."""
    visitor = Visitor(app)
    form = {"email": address, "csrf_token": csrf_token(visitor.get(path))}
    with recorded(app) as statements:
        answer = visitor.client.post(path, data=form)
    unstable = {"Date", "Set-Cookie"}
    headers = [(name, "" if name in unstable else value) for name, value in answer.headers]
    return statements, answer.status_code, headers, len(answer.data)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sort", OTHERS)
def test_answer_and_statements_are_those_for_a_known_address(sort, path, app, people) -> None:
    known = asked(app, path, KNOWN)
    assert (len(known[0]), known[1]) == (1, 302)  # one INSERT
    assert asked(app, path, OTHERS[sort]) == known


@pytest.mark.parametrize("path", PATHS)
def test_the_request_writes_one_row_and_reads_nothing(path, app, people) -> None:
    statements = asked(app, path, KNOWN)[0]
    assert len(statements) == 1
    assert statements[0].startswith("INSERT INTO outbox")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sort", [name for name in OTHERS if name != "in_another_spelling"])
def test_page_after_asking_is_the_one_for_a_known_address(sort, path, app, people) -> None:
    pages = []
    for address in (KNOWN, OTHERS[sort]):
        visitor = Visitor(app)
        visitor.submit(path, email=address)
        page = visitor.get(PATHS[path])
        pages.append(page.text.replace(csrf_token(page), "").replace(address, ""))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("path", PATHS)
def test_asking_again_at_once_gets_the_same_answer(path, app, people) -> None:
    """An account that was just emailed is throttled, but only where nobody sees it."""
    first, second = (asked(app, path, KNOWN) for _ in range(2))
    assert first == second
