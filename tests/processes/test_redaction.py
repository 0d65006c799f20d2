"""What the log records of this process contain of an emailed link."""

import io
import logging
import sys

import pytest

from pwreset import logs
from pwreset.logs import redact

UID = "MTIz"
TOKEN = "aSxR9Q.x3Yq-8_0123456789abcdefghijklmnopqrstuvwxyz"[:50]
LINK = f"/password-reset-confirm/{UID}/{TOKEN}"
CLEAN = "/password-reset-confirm/[redacted]"


@pytest.fixture
def log():
    """Return a logger with records as the application makes them, and what it wrote."""
    before = logging.getLogRecordFactory()
    logs.install()
    written = io.StringIO()
    logger = logging.Logger("a logger of its own")  # noqa: LOG001 (in no tree, so that no other test hears it)
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    yield logger, written
    logging.setLogRecordFactory(before)


def test_the_example_is_shaped_like_a_token(app):
    from pwreset.accounts.tokens import token_generator
    from pwreset.models import User

    with app.app_context():
        real = token_generator("reset").make_token(
            User(id=1, email="a@example.com", password_hash="!", security_stamp="s")
        )
    assert len(real) == len(TOKEN) == 50
    assert real.index(".") == TOKEN.index(".")
    assert redact(f"x {real} y") == "x [redacted] y"


@pytest.mark.parametrize("page", ["password-reset-confirm", "password-reset-cancel", "account-secure"])
@pytest.mark.parametrize("after", ["", "/", "/?a=1", "#top", " HTTP/1.1", "' 200", '"', "\nnext line"])
def test_an_emailed_link_keeps_neither_uid_nor_token_but_all_that_stands_around_it(page, after):
    text = redact(f"GET https://accounts.example.com/{page}/{UID}/{TOKEN}{after}")
    assert UID not in text
    assert TOKEN not in text
    assert text == f"GET https://accounts.example.com/{page}/[redacted]" + after.removeprefix("/")


@pytest.mark.parametrize(
    "spelling",
    [
        LINK.replace("-", "%2D"),
        LINK.replace("-", "%2d").replace(".", "%2E"),
        LINK.replace("/", "%2F"),
        LINK.upper(),
        "".join(f"%{ord(letter):02x}" for letter in LINK),
        LINK.replace(TOKEN, "".join(f"%{ord(letter):02X}" for letter in TOKEN)),
        "/" + LINK,
    ],
)
def test_another_spelling_that_opens_the_page_is_hidden_too(spelling):
    text = redact(f'"GET {spelling} HTTP/1.1" 302')
    assert text.endswith('/[redacted] HTTP/1.1" 302')
    assert not any(part.lower() in text.lower() for part in (UID, *TOKEN.split(".")))


@pytest.mark.parametrize("after", ["", "/", " HTTP/1.1", "/ HTTP/1.1"])
def test_the_page_without_the_token_stays_readable(after):
    text = f"POST /password-reset-confirm/{UID}/set-password{after}"
    assert redact(text) == text


def test_a_token_before_set_password_is_hidden():
    assert TOKEN not in redact(f"{LINK}/set-password")


@pytest.mark.parametrize("text", [f"?token={TOKEN}", f"({TOKEN})", f"'{TOKEN}'", f"/x/{TOKEN}/y", TOKEN * 2])
def test_a_token_is_known_by_its_shape_wherever_it_stands(text):
    assert "[redacted]" in redact(text)
    assert TOKEN.partition(".")[2] not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100%",
        "50%25 of /caf%C3%A9?next=%2Faccount%2F",
        "GET /password-reset/done/ HTTP/1.1",
        "Mail 7 sent (password_reset)",
        "Read it at http://127.0.0.1:5000/mailbox/0123456789abcdef0123456789abcdef",
        "3.11.7 127.0.0.1:5000 pwreset.outbox.delivery",
    ],
)
def test_all_other_text_stays_as_it_is(text):
    assert redact(text) == text


def test_several_links_in_one_text_are_all_hidden():
    assert redact(f"{LINK} and {LINK}/ and {TOKEN}") == f"{CLEAN} and {CLEAN} and [redacted]"


@pytest.mark.parametrize(
    "arguments",
    [
        (f"GET {LINK}",),
        ("GET %s", LINK),
        ("%s %s %d", "GET", LINK, 200),
        ('%(m)s "%(r)s" %(s)s', {"m": "-", "r": LINK, "s": 200}),
        ("%r", LINK.encode()),
        ("100%% of %s", LINK),
        ("%s", ValueError(LINK)),
    ],
)
def test_a_record_is_clean_whatever_way_its_text_is_put_together(log, arguments):
    logger, written = log
    logger.warning(*arguments)
    assert CLEAN in written.getvalue()
    assert TOKEN not in written.getvalue()


def test_a_record_with_percent_signs_of_its_own_is_not_formatted_twice(log):
    logger, written = log
    logger.warning("%s", f"{LINK}?q=100%d%s%(x)s")
    assert written.getvalue() == f"WARNING {CLEAN}?q=100%d%s%(x)s\n"


def test_a_record_without_a_link_keeps_its_message_and_arguments(log):
    logger, _ = log
    record = logger.makeRecord("n", logging.INFO, "f", 1, "%s of %d", ("one", 2), None)
    assert (record.msg, record.args) == ("%s of %d", ("one", 2))


def fail_twice():
    try:
        {}[TOKEN]
    except KeyError as error:
        raise RuntimeError("no route for", LINK) from error


def test_a_traceback_is_clean_in_its_message_and_its_cause(log):
    logger, written = log
    try:
        fail_twice()
    except RuntimeError:
        logger.exception("Exception on %s [GET]", LINK)
    text = written.getvalue()
    assert text.startswith(f"ERROR Exception on {CLEAN} [GET]\nTraceback")
    assert f"RuntimeError: ('no route for', '{CLEAN}')" in text
    assert "KeyError: '[redacted]'" in text
    assert TOKEN not in text


def test_a_record_that_can_not_be_formatted_stays_logging_s_own_affair(log, monkeypatch):
    logger, written = log
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.warning("%d apples", "many")
    logger.warning("the next one")
    assert written.getvalue() == "WARNING the next one\n"


def test_installing_it_twice_changes_nothing(log):
    once = logging.getLogRecordFactory()
    logs.install()
    assert logging.getLogRecordFactory() is once


def test_it_keeps_a_record_factory_that_was_there_before(log):
    class Special(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Special)
    logs.install()
    record = logging.getLogger("x").makeRecord("n", logging.INFO, "f", 1, LINK, (), None)
    assert isinstance(record, Special)
    assert record.getMessage() == CLEAN


def test_a_record_logged_without_an_exception_under_way_is_fine(log):
    logger, written = log
    assert sys.exc_info() == (None, None, None)
    logger.error("nothing", exc_info=True)  # noqa: LOG014 (the point of it)
    assert written.getvalue().startswith("ERROR nothing\n")


@pytest.mark.usefixtures("log")
def test_the_development_server_says_in_plain_words_where_it_runs(caplog):
    logging.getLogger("werkzeug").warning(
        "\x1b[31m\x1b[1mWARNING: for development.\x1b[0m\n * Running on %s", "http://x"
    )
    assert caplog.messages == ["WARNING: for development. * Running on http://x"]
