"""What both engines are held to, and what PostgreSQL alone can do: end connections, freeze, keep locks, repeat rows."""

import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import create_engine, event, insert, text, update
from sqlalchemy.exc import IntegrityError

from pwreset import accounts, outbox
from pwreset.accounts.tokens import token_generator
from pwreset.clock import utcnow
from pwreset.database import UNAVAILABLE
from pwreset.extensions import db
from pwreset.models import OutboxMessage, User
from tests.support.app import Inbox, MakeApp, Visitor, add_user, migrate
from tests.support.databases import Database, PostgreSQL, Server, on_postgresql
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD

ROW = {"email": "grace.hopper@example.com", "email_key": "grace.hopper@example.com", "password_hash": "!", "stamp": "s"}
COUNT = "SELECT count(*) FROM outbox"


# --- Errors say nothing of a row


@pytest.mark.parametrize("missing", [None, "password_hash"], ids=["twice", "incomplete"])
def test_an_error_names_the_rule_and_repeats_no_value_of_the_row(app: Flask, missing: str | None) -> None:
    with app.app_context(), pytest.raises(IntegrityError) as caught:
        for _ in range(2):
            db.session.execute(insert(User).values({**ROW, missing: None} if missing else ROW))
    told = "".join(traceback.format_exception(caught.value))
    assert "grace" not in told
    assert "DETAIL" not in told
    assert (missing or "email_key") in told


def test_the_log_of_a_view_that_broke_on_a_row_repeats_no_value_of_it(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(PROPAGATE_EXCEPTIONS=False)

    def break_on_a_row() -> None:
        for _ in range(2):
            db.session.execute(insert(User).values(ROW))

    app.add_url_rule("/crash/", view_func=break_on_a_row)
    assert Visitor(app).get("/crash/").status_code == 500
    assert "Traceback" in caplog.text
    assert "IntegrityError" in caplog.text
    assert "grace" not in caplog.text


# --- A server that goes away


@contextmanager
def cut(app: Flask, database: PostgreSQL, beginning: str) -> Iterator[list[str]]:
    """End every connection right before the first statement that begins so."""
    cuts: list[str] = []

    def before(_connection, _cursor, statement, _parameters, _context, _many):
        if statement.startswith(beginning) and not cuts:
            cuts.append(statement)
            database.end_connections()

    def before_commit(_connection):
        if beginning == "COMMIT" and not cuts:
            cuts.append(beginning)
            database.end_connections()

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "commit", before_commit)
    yield cuts
    event.remove(engine, "before_cursor_execute", before)
    event.remove(engine, "commit", before_commit)


@on_postgresql
@pytest.mark.parametrize("statement", ["INSERT INTO outbox", "COMMIT"])
def test_a_form_whose_connection_ends_in_the_middle_is_a_503_and_the_next_one_is_taken(
    app: Flask, visitor: Visitor, database: PostgreSQL, statement: str
) -> None:
    with cut(app, database, statement) as cuts:
        assert visitor.request_reset().status_code == 503
        assert len(cuts) == 1
        assert database.query(COUNT) == [(0,)]
        assert visitor.request_reset().status_code == 302
    assert database.query(COUNT) == [(1,)]


@on_postgresql
@pytest.mark.parametrize("statement", ["SELECT users", "INSERT INTO security_events", "COMMIT"])
def test_a_link_whose_connection_ends_in_the_middle_is_a_503_and_opens_at_the_next_try(
    app: Flask, alice: int, inbox: Inbox, database: PostgreSQL, statement: str
) -> None:
    link = path_of(inbox.reset_link())
    visitor = Visitor(app)
    with cut(app, database, statement):
        assert visitor.get(link).status_code == 503
        assert visitor.get(link).status_code == 302


@on_postgresql
@pytest.mark.parametrize("statement", ["UPDATE users", "INSERT INTO outbox", "COMMIT"])
def test_a_password_whose_connection_ends_in_the_middle_is_not_set_and_the_link_still_is_good(
    app: Flask, alice: int, inbox: Inbox, database: PostgreSQL, statement: str
) -> None:
    visitor = Visitor(app)
    form = visitor.open_link(inbox.reset_link())
    fields = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD, "csrf_token": csrf_token(form)}
    with cut(app, database, statement):
        assert visitor.client.post(form.request.path, data=fields).status_code == 503
        assert Visitor(app).log_in(password=NEW_PASSWORD).status_code == 200
        assert visitor.client.post(form.request.path, data=fields).status_code == 302
    assert Visitor(app).log_in(password=NEW_PASSWORD).status_code == 302


@on_postgresql
@pytest.mark.parametrize("statement", ["UPDATE outbox", "SELECT users", "DELETE FROM outbox", "COMMIT"])
def test_an_email_whose_connection_ends_in_the_middle_is_sent_once_its_lease_is_over(
    app: Flask, alice: int, inbox: Inbox, database: PostgreSQL, statement: str
) -> None:
    Visitor(app).request_reset()
    with cut(app, database, statement) as cuts:
        try:
            inbox.deliver()
        except UNAVAILABLE:
            database.query("UPDATE outbox SET run_after = created_at")
            inbox.let_a_minute_pass()
            inbox.deliver()
        assert len(cuts) == 1
    assert inbox.waiting() == 0
    assert len(inbox.emails()) == 1


@on_postgresql
def test_a_connection_that_ended_while_nobody_used_it_is_noticed_by_nobody(
    app: Flask, visitor: Visitor, database: PostgreSQL
) -> None:
    assert visitor.request_reset().status_code == 302
    database.end_connections()
    assert visitor.request_reset().status_code == 302


@on_postgresql
def test_a_server_that_only_reads_as_after_a_failover_is_not_available(make_app: MakeApp, database: PostgreSQL) -> None:
    app = make_app(DATABASE_URL=f"{database.url}?options=-c%20default_transaction_read_only%3Don")
    assert Visitor(app).request_reset().status_code == 503
    assert Visitor(app).get("/password-reset-confirm/MQ/aaaaaa-bbbb").status_code == 200


# --- Nobody waits without end


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return the port of a server that takes connections and says nothing, as one that is frozen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@on_postgresql
@pytest.mark.parametrize(("query", "seconds"), [("", 5), ("?connect_timeout=2", 2)], ids=["default", "the URL's own"])
def test_a_server_that_says_nothing_is_given_up_in_time(
    make_app: MakeApp, silent_port: int, query: str, seconds: int
) -> None:
    app = make_app(DATABASE_URL=f"postgresql://127.0.0.1:{silent_port}/nothing{query}")
    start = time.monotonic()
    assert app.test_client().get("/metrics").status_code == 503
    assert seconds - 0.5 < time.monotonic() - start < seconds + 2


@on_postgresql
def test_a_machine_that_is_gone_is_noticed_by_the_kernel_within_seconds(app: Flask) -> None:
    with app.app_context():
        number = db.session.connection().connection.driver_connection.pgconn.socket
        with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as line:
            options = [line.getsockopt(*option) for option in KERNEL_OPTIONS]
    assert options == [1, 5, 10_000]


KERNEL_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
]


@contextmanager
def locked(database: PostgreSQL, statement: str) -> Iterator[None]:
    """Hold a lock in another connection's transaction."""
    with psycopg.connect(database.url) as other:
        other.execute(statement.encode())
        yield
        other.rollback()


@on_postgresql
def test_a_row_that_somebody_keeps_locked_makes_a_503_after_five_seconds_as_a_locked_sqlite_does(
    app: Flask, alice: int, visitor: Visitor, database: PostgreSQL
) -> None:
    with locked(database, "SELECT FROM users FOR UPDATE"):
        start = time.monotonic()
        assert visitor.log_in().status_code == 503
        assert 4 < time.monotonic() - start < 8
    assert visitor.log_in().status_code == 302


@on_postgresql
def test_who_freezes_in_a_transaction_loses_it_and_its_locks(app: Flask, alice: int, database: PostgreSQL) -> None:
    freeze = update(User).values(cooldown_started_at=utcnow())
    with app.app_context():
        assert db.session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
        db.session.execute(text("SET idle_in_transaction_session_timeout = 100"))
        db.session.execute(freeze)
        time.sleep(0.5)
        database.query("UPDATE users SET email = email")  # would wait for the lock
        with pytest.raises(UNAVAILABLE):
            db.session.execute(freeze)
        db.session.rollback()
        db.session.execute(freeze)


@on_postgresql
def test_no_statement_is_prepared_since_its_plan_would_be_kept_while_the_outbox_grows(app: Flask) -> None:
    with app.app_context():
        for _ in range(20):
            assert outbox.claim() is None
        assert db.session.execute(text("SELECT statement FROM pg_prepared_statements")).all() == []


# --- What is stored is what was given


def test_moments_are_the_same_moments_whatever_the_servers_time_zone(make_app: MakeApp, database: Database) -> None:
    moment = datetime(2030, 6, 1, 12, 34, 56, 789012, tzinfo=UTC)
    app = make_app()
    alice = add_user(app, "alice@example.com", PASSWORD)
    with app.app_context():
        db.session.execute(update(User).values(last_login=moment))
        db.session.commit()
        token = token_generator("reset").make_token(accounts.find_by_id(alice))
    if isinstance(database, PostgreSQL):
        app = make_app(DATABASE_URL=f"{database.url}?options=-c%20timezone%3DPacific/Auckland")
    with app.app_context():
        user = accounts.find_by_id(alice)
        assert (user.last_login, user.last_login.tzinfo) == (moment, UTC)
        assert token_generator("reset").check_token(user, token)


@on_postgresql
def test_a_server_set_up_without_a_locale_keeps_letters_beyond_ascii(
    postgresql_server: Server, make_app: MakeApp, tmp_path_factory: pytest.TempPathFactory
) -> None:
    database = postgresql_server.create(encoding="SQL_ASCII")
    try:
        migrate(tmp_path_factory.mktemp("ascii"), **database.settings)
        app = make_app(**database.settings)
        add_user(app, "josé@example.com", None)
        with app.app_context():
            assert accounts.find("JOSÉ@example.com").email == "josé@example.com"
    finally:
        postgresql_server.drop(database)


LONGEST = {"email": "é" * 320, "email_key": "".join(map(chr, range(0x20000, 0x20000 + 640))), "stamp": "x" * 64}


def test_the_longest_key_fits_into_its_index(app: Flask) -> None:
    with app.app_context():
        db.session.execute(insert(User).values({**LONGEST, "password_hash": "x" * 255}))
        db.session.add(OutboxMessage(kind="register", address=LONGEST["email"], email_key=LONGEST["email_key"]))
        db.session.commit()


HOSTILE = {
    "a long browser": {"headers": {"User-Agent": "x" * 9000}},
    "a NUL in the browser": {"headers": {"User-Agent": "x\x00y"}},
    "a long language": {"headers": {"Accept-Language": "x" * 9000}},
    "a NUL in the language": {"headers": {"Accept-Language": "d\x00e"}},
    "a long client address": {"environ_overrides": {"REMOTE_ADDR": "fe80::1%" + "e" * 900}},
    "the longest client address": {
        "environ_overrides": {"REMOTE_ADDR": "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"}
    },
    "a NUL as the client address": {"environ_overrides": {"REMOTE_ADDR": "\x00"}},
    "a port of many digits": {"headers": {"Host": "localhost:" + "0" * 200 + "5000"}},
}


@pytest.mark.parametrize("path", ["/password-reset/", "/register/", "/login/"])
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_client_says_of_itself_is_too_much_for_a_column(
    app: Flask, alice: int, visitor: Visitor, path: str, hostile: dict[str, Any]
) -> None:
    fields = {"email": "alice@example.com", "password": PASSWORD, "csrf_token": csrf_token(visitor.get(path))}
    assert visitor.client.post(path, data=fields, **hostile).status_code in {302, 400}


NULS = ["\x00", "a\x00@example.com", "a@exam\x00ple.com", "a@example.com\x00", "\x00a@example.com"]


@pytest.mark.parametrize("path", ["/password-reset/", "/register/", "/login/"])
@pytest.mark.parametrize("address", NULS)
def test_a_nul_in_an_address_is_a_complaint_of_the_form(visitor: Visitor, path: str, address: str) -> None:
    page = visitor.submit(path, email=address, password="\x00" * 20)
    assert page.status_code == 200
    assert 'id="email_error"' in page.text


def test_a_nul_in_a_password_is_a_complaint_of_the_form(alice: int, visitor: Visitor) -> None:
    nul = "quiet\x00rivers under old bridges"
    assert "do not match an account" in visitor.log_in(password=nul).text
    visitor.log_in()
    page = visitor.submit("/password-change/", old_password=nul, new_password1=nul, new_password2=nul)
    assert page.status_code == 200
    assert 'id="new_password1_error"' in page.text
    assert 'id="old_password_error"' in page.text


def test_a_nul_in_what_travels_with_a_row_arrives(app: Flask) -> None:
    from pwreset.request_info import RequestInfo

    with app.app_context():
        outbox.enqueue("register", "a@example.com", RequestInfo(), {"note": "x\x00y\ud800"})
        db.session.commit()
        assert outbox.claim().options == {"note": "x\x00y\ud800"}


def test_no_other_engine_of_the_process_is_touched(app: Flask) -> None:
    """What listens to all engines would outlive a reload of the code, and go before what the new code says."""
    with create_engine("sqlite://").connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0
