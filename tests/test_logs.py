"""LOG_FORMAT=json: each line is one JSON object, with ids and without addresses, tokens or bodies."""

import json
import logging

import pytest

from pwreset import logs
from pwreset.logs import JSONFormatter, formatter
from tests.support.app import MakeApp, Visitor, add_user
from tests.support.outbox import app_for, deliver, request_email
from tests.support.smtp import SMTPServer, in_turn

LINK = "/password-reset-confirm/Mg/cy4xkq.zqXn0y3cWw2bVt1Rk8sPq4mYd6LhUe9aTfOoGiJuNx0"


@pytest.fixture
def lines():
    """Return a function that gives what was logged so far, each line read back."""
    written: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    keeper = Keeper()
    keeper.setFormatter(JSONFormatter())
    root, level = logging.getLogger(), logging.getLogger("pwreset").level
    root.addHandler(keeper)
    logging.getLogger("pwreset").setLevel(logging.INFO)
    logs.install()
    yield lambda: [json.loads(line) for line in written if "\n" not in line]
    logging.getLogger("pwreset").setLevel(level)
    root.removeHandler(keeper)
    assert not [line for line in written if "\n" in line]


def test_a_line_says_when_how_bad_who_and_what(lines) -> None:
    logging.getLogger("pwreset.mail").warning("No mail is being sent: %s", "refused")
    (line,) = lines()
    assert set(line) == {"time", "level", "logger", "process", "message"}
    assert (line["level"], line["logger"], line["message"]) == (
        "WARNING",
        "pwreset.mail",
        "No mail is being sent: refused",
    )
    assert line["time"].endswith("+00:00")


def test_a_line_break_in_a_message_stays_in_its_line(lines) -> None:
    logging.getLogger("pwreset").warning("first\nsecond\u2028third")
    assert lines()[0]["message"] == r"first\nsecond\u2028third"


def test_an_email_is_named_by_its_ids_and_not_by_its_address(make_app: MakeApp, lines) -> None:
    with SMTPServer(rcpt_reply=in_turn("550 alice@example.com is unknown")) as server:
        app = app_for(make_app, server)
        add_user(app, "alice@example.com", None)
        request_email(app, "alice@example.com", "password_reset")
        deliver(app)
        request_email(app)
        deliver(app)
    refused, sent = (line for line in lines() if line["logger"] == "pwreset.outbox.delivery")
    assert (refused["level"], refused["email_id"], refused["kind"], refused["attempts"]) == (
        "WARNING",
        1,
        "password_reset",
        0,
    )
    assert (sent["level"], sent["email_id"], sent["kind"]) == ("INFO", 2, "password_changed")
    assert len(refused["message_id"]) == 32
    assert "alice" not in json.dumps([refused, sent])


def test_a_traceback_is_in_the_line_and_names_no_link(lines) -> None:
    try:
        int(LINK)
    except ValueError:
        logging.getLogger("pwreset").exception("Exception on %s", LINK)
    (line,) = lines()
    assert line["message"] == "Exception on /password-reset-confirm/[redacted]"
    assert "/password-reset-confirm/[redacted]" in line["traceback"]
    assert "zqXn0y3" not in json.dumps(line)


def test_text_stays_text() -> None:
    record = logging.LogRecord("pwreset", logging.INFO, "", 0, "hello", None, None)
    assert formatter("text").format(record).endswith(" INFO pwreset: hello")


def test_a_page_that_fails_is_one_line(make_app: MakeApp, lines) -> None:
    app = make_app()
    app.add_url_rule("/broken/", view_func=lambda: 1 / 0)
    assert Visitor(app).get("/broken/").status_code == 500
    (line,) = [line for line in lines() if line["level"] == "ERROR"]
    assert "ZeroDivisionError" in line["traceback"]
