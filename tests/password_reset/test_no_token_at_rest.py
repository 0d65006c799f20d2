"""A token is in the email and in the browser that opened it, and nowhere else, at any step."""

import base64
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import time_machine
from flask import Flask, request
from werkzeug.serving import make_server

from pwreset import accounts, logs
from pwreset.accounts.tokens import token_generator
from pwreset.password_reset.views import PasswordResetView
from tests.support.app import Inbox, Visitor
from tests.support.databases import Database, SQLite
from tests.support.pages import link_in, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD


class Watch:
    """Knows every token emailed so far, and looks for them wherever something is kept."""

    def __init__(self, database: Database, folder: Path, caplog, capfd) -> None:
        self.database, self.folder, self.caplog, self.capfd = database, folder, caplog, capfd
        self.tokens: list[str] = []
        self.looked_at: set[str] = set()

    def learn(self, link: str) -> str:
        self.tokens.append(link.rpartition("/")[2])
        return link

    def look(self) -> None:
        """Fail where a token, its signature, or either in base64 is in a row, a file, a log record or the output."""
        out, err = self.capfd.readouterr()
        places = {"stdout": out.encode(), "stderr": err.encode(), "log": self._log(), **self.database.contents()}
        # The mailbox is where the email goes, as a mail server's spool would be.
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.parent.name != "mailbox"]
        places |= {path.name: path.read_bytes() for path in files}
        self.looked_at |= {name for name, content in places.items() if content}
        for secret in self._spellings():
            assert [name for name, content in places.items() if secret in content] == []

    def _log(self) -> bytes:
        made = logging.Formatter("%(name)s %(message)s")
        return "\n".join(f"{made.format(record)} {record.args}" for record in self.caplog.records).encode()

    def _spellings(self) -> Iterator[bytes]:
        for token in self.tokens:
            for text in (token, token.partition(".")[2]):
                yield text.encode()
                # Without the ends, which depend on where in the other text it would stand.
                yield from (base64.b64encode(b" " * shift + text.encode())[4:-4] for shift in range(3))


@pytest.fixture
def watch(database: Database, tmp_path: Path, caplog, capfd) -> Watch:
    caplog.set_level(logging.DEBUG)
    for noisy in ("sqlalchemy.engine", "sqlalchemy.pool", "werkzeug"):
        caplog.set_level(logging.DEBUG, logger=noisy)
    return Watch(database, tmp_path, caplog, capfd)


@pytest.fixture
def origin(app: Flask) -> Iterator[str]:
    """Serve the application as `flask run` does, and return where."""
    logs.log_to_console("text")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_token_is_stored_in_any_step_of_an_account(app, visitor, watch) -> None:
    inbox = Inbox(app)
    visitor.submit("/register/", email="alice@example.com")
    invitation = watch.learn(link_in(inbox.deliver_one()))
    watch.look()
    visitor.open_link(invitation)
    watch.look()
    visitor.choose(invitation, PASSWORD)
    watch.look()
    visitor.log_in()
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert visitor.submit("/password-change/", **fields).status_code == 302
    inbox.deliver()
    watch.look()
    reset = watch.learn(inbox.reset_link())
    watch.look()
    visitor.open_link(reset)
    watch.look()
    visitor.choose(reset, "short")
    watch.look()
    assert visitor.choose(reset, PASSWORD).status_code == 302
    watch.look()
    visitor.open_link(reset)
    inbox.deliver()
    watch.look()
    stored = {"pwreset.db"} if isinstance(watch.database, SQLite) else {"users", "outbox", "security_events"}
    assert {*stored, "log"} <= watch.looked_at


def test_the_watch_finds_a_token_that_is_kept(app, alice, watch, inbox) -> None:
    link = watch.learn(inbox.reset_link())
    Path(watch.folder / "note").write_text(link, encoding="ascii")
    with pytest.raises(AssertionError, match="note"):
        watch.look()


def test_no_request_line_shows_the_token_of_a_link_that_was_opened(origin, alice, inbox, watch) -> None:
    link = watch.learn(inbox.reset_link())
    for path in (path_of(link), path_of(link) + "/?next=1", "//" + path_of(link), "/?link=" + link):
        with urlopen(origin + path) as answer:  # noqa: S310 (our own server)
            answer.read()
    watch.look()
    assert any(record.name == "werkzeug" and "[redacted]" in record.getMessage() for record in watch.caplog.records)


def test_no_log_shows_the_token_of_a_link_whose_page_broke(app, alice, inbox, watch) -> None:
    @app.before_request
    def break_down() -> None:
        if "/password-reset-confirm/" in request.path:
            raise RuntimeError(request.path)

    link = watch.learn(inbox.reset_link())
    assert Visitor(app).get(path_of(link)).status_code == 500
    watch.look()
    assert any(record.exc_info and "[redacted]" in record.getMessage() for record in watch.caplog.records)


def test_no_token_is_kept_of_an_email_whose_text_broke_with_it(app, alice, visitor, inbox, watch, mount) -> None:
    mount(PasswordResetView, {"broken.txt": "{{ {}[token].name }}"}, email_template_name="broken.txt")
    visitor.submit("/custom/", email="alice@example.com")
    with time_machine.travel(time.time() + 5, tick=False), app.app_context():
        watch.learn(token_generator("reset").make_token(accounts.find_by_id(alice)))
        inbox.deliver()
    watch.look()
    assert (inbox.emails(), inbox.waiting()) == ([], 1)
    assert any("could not be written" in record.getMessage() for record in watch.caplog.records)
