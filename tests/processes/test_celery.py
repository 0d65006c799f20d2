"""Celery delivers: its worker and beat as they are started, beside a real gunicorn, Redis, RabbitMQ and PostgreSQL."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from pwreset import outbox
from pwreset.extensions import db
from pwreset.request_info import RequestInfo
from tests.support.app import MakeApp, add_user
from tests.support.brokers import Broker, RabbitMQ, Redis
from tests.support.celery import APP, RELAY, CeleryBeat, CeleryWorker
from tests.support.certificates import Authority
from tests.support.clock import PATIENCE, until
from tests.support.databases import on_postgresql
from tests.support.instance import OBSERVER, STARTED, Instance, Serve
from tests.support.redis import HOST, SECRET, FalseRedis
from tests.support.scripted_smtp import SILENT, USUAL, ScriptedServer
from tests.support.servers import Browser, Gunicorn, Server, free_port
from tests.support.smtp import SMTPServer

pytestmark = on_postgresql

SHORT_LEASE = {"OUTBOX_LEASE_SECONDS": 6, "EMAIL_DEADLINE": 5, "EMAIL_TIMEOUT": 5}
NO_EMAIL_IS_SENT = "No email is sent"
# Not a mock: at its end it only says what was imported.
TELL_IMPORTS = """
import atexit, sys
atexit.register(lambda: print("imported", {"celery", "kombu", "amqp", "redis"} & set(sys.modules), flush=True))
"""
CONNECT = """
from pwreset.celery_app import celery_app
for _ in range({times}):
    try:
        celery_app.connection_for_write().ensure_connection(max_retries=0)
    except Exception as error:
        print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as broker:
        yield broker


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq") / "node") as broker:
        yield broker


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Return a broker that holds nothing."""
    broker: Broker = request.getfixturevalue(request.param)
    broker.forget_everything()
    return broker


@pytest.fixture
def people(make_app: MakeApp) -> "People":
    return People(make_app)


class People:
    """Accounts, and what they ask for without a visit."""

    def __init__(self, make_app: MakeApp) -> None:
        self.app, self.number = make_app(), 0

    def request_resets(self, count: int) -> list[str]:
        """Let so many new accounts ask for a reset, one after the other."""
        people = [f"person-{self.number + number:03}@example.com" for number in range(count)]
        self.number += count
        for person in people:
            add_user(self.app, person, None)
        with self.app.app_context():
            for person in people:
                outbox.enqueue("password_reset", person, RequestInfo())
            db.session.commit()
        return people


def run_celery(serve: Serve, broker: Broker, mail_port: int, *options: str, **settings: object) -> Server:
    """Start beat, and a worker with these options, which is returned."""
    settings = {"CELERY_BROKER_URL": broker.url, "EMAIL_PORT": mail_port, **settings}
    serve(CeleryBeat, visit=False, **settings)
    return serve(CeleryWorker, *options, **settings)


# --- from the form to the email


def test_a_reset_asked_for_at_gunicorn_is_emailed_by_celery_alone(
    make_app: MakeApp, instance: Instance, serve: Serve, broker: Broker, observer
):
    add_user(make_app(), "alice@example.com", "seven green lanterns drift")
    (observer / "sitecustomize.py").write_text(OBSERVER + TELL_IMPORTS, encoding="utf-8")
    with SMTPServer() as mail_server:
        settings = {"CELERY_BROKER_URL": broker.url, "EMAIL_PORT": mail_server.port}
        web = serve(Gunicorn, PYTHONPATH=observer, **settings)
        assert Browser(web).submit("/password-reset/", email="alice@example.com").status == 302
        worker = run_celery(serve, broker, mail_server.port)
        (mail,) = mail_server.wait_for(1, timeout=PATIENCE)
        assert mail.rcpt_tos == ["alice@example.com"]
        until(lambda: "Email 1 (password_reset) sent" in worker.log(), "the worker's own line")
        web.terminate()
        web.wait()
        assert STARTED not in web.log()
        assert web.log().count("imported set()") >= 3  # the first process and the two that serve
        assert web.log().count("imported") == web.log().count("imported set()")


def test_no_request_speaks_to_the_broker_and_one_that_is_down_slows_none(
    make_app: MakeApp, instance: Instance, serve: Serve, broker_that_counts: "CountingListener"
):
    add_user(make_app(), "alice@example.com", "seven green lanterns drift")
    closed = f"amqp://pwreset:{SECRET}@{HOST}:{free_port()}//"
    for url in (broker_that_counts.url, closed):
        web = serve(Gunicorn, CELERY_BROKER_URL=url, RATELIMIT_ENABLED="false", **RELAY, EMAIL_PORT=free_port())
        browser = Browser(web)
        for path, fields in [("/password-reset/", {}), ("/register/", {}), ("/login/", {"password": "wrong"})] * 4:
            for address in ("alice@example.com", "nobody@example.com"):
                page = browser.get(path)
                before = time.monotonic()
                browser.fill_in(page, email=address, **fields)
                assert time.monotonic() - before < 1
    assert broker_that_counts.connections == 0
    assert instance.waiting() == 32


class CountingListener:
    """A port that counts who connects, and says nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self._listener = socket.create_server((HOST, 0))
        self.url = f"redis://:{SECRET}@{HOST}:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._count, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _count(self) -> None:
        with suppress(OSError):  # closed
            while True:
                self._listener.accept()[0].close()
                self.connections += 1


@pytest.fixture
def broker_that_counts() -> Iterator[CountingListener]:
    with closing(CountingListener()) as listener:
        yield listener


# --- what the broker holds


def test_the_broker_holds_one_task_without_address_or_token_however_many_ask_and_send(
    instance: Instance, serve: Serve, broker: Broker, people: People
):
    with SMTPServer() as mail_server:
        settings = {"CELERY_BROKER_URL": broker.url, "EMAIL_PORT": mail_server.port}
        asked = people.request_resets(3)
        beats = [serve(CeleryBeat, visit=False, **settings) for _ in range(2)]
        until(lambda: all(beat.ready() for beat in beats), "both to start")
        asked += people.request_resets(3)
        time.sleep(3.5)  # a task a second from each
        assert broker.waiting_tasks() <= 2  # both may have sent one at once
        everything = b"".join(broker.contents())
        assert b"pwreset.deliver" in everything
        assert SECRET.encode() not in everything
        worker = serve(CeleryWorker, **settings)
        mails = mail_server.wait_for(6, timeout=PATIENCE)
        everything += b"".join(broker.contents())
        worker.terminate()
        worker.wait()
        everything += b"".join(broker.contents())
    tokens = [link.encode() for mail in mails for link in re.findall(r"[\w-]{6,7}\.[\w-]{43}", mail.content.decode())]
    assert len(tokens) >= 6
    assert [word for word in [*tokens, *map(str.encode, asked), b"@example.com"] if word in everything] == []


def test_a_task_says_the_same_whatever_waits(instance: Instance, serve: Serve, redis: Redis, people: People):
    def task_of_a_new_beat() -> dict[str, object]:
        redis.forget_everything()
        beat = serve(CeleryBeat, CELERY_BROKER_URL=redis.url)
        until(redis.waiting_tasks, "a task")
        beat.kill9()
        task: dict[str, object] = json.loads(redis.execute("LPOP", "pwreset.deliver"))
        return {name: re.sub(r"[0-9a-f-]{36}|gen\d+@", "", repr(part)) for name, part in task.items()}

    before = task_of_a_new_beat()
    people.request_resets(2)
    assert task_of_a_new_beat() == before


def test_beat_sends_a_task_within_a_second_or_so_of_the_one_before(instance: Instance, serve: Serve, redis: Redis):
    beat = serve(CeleryBeat, visit=False, CELERY_BROKER_URL=redis.url)
    until(redis.waiting_tasks, "the first task")
    pauses = []
    for _ in range(5):
        redis.execute("LPOP", "pwreset.deliver")
        before = time.monotonic()
        until(redis.waiting_tasks, "the next task")
        pauses.append(time.monotonic() - before)
    assert sorted(pauses)[2] < 1.5  # the median: a busy machine may be late for one
    assert "does not accept the task" not in beat.log()


# --- many, few, and none


def test_several_workers_send_each_of_many_emails_once(instance: Instance, serve: Serve, redis: Redis, people: People):
    asked = people.request_resets(200)
    with SMTPServer() as mail_server:
        first = run_celery(serve, redis, mail_server.port)
        second = serve(CeleryWorker, CELERY_BROKER_URL=redis.url, EMAIL_PORT=mail_server.port)
        instance.wait_until_all_is_sent()
        assert sorted(mail.rcpt_tos[0] for mail in mail_server.messages) == asked
        until(lambda: first.log().count(" sent") + second.log().count(" sent") == 200, "a line for each mail")


def test_a_pool_process_killed_in_a_send_is_replaced_and_the_email_comes_again_when_its_lease_ends(
    instance: Instance, serve: Serve, redis: Redis, people: People
):
    with ScriptedServer({"DATA": [SILENT, USUAL]}) as mail_server:
        worker = run_celery(serve, redis, mail_server.port, "--concurrency", "1", clean_log=False, **SHORT_LEASE)
        (child,) = set(worker.processes()) - {worker.pid}
        people.request_resets(2)
        mail_server.wait_for_stage("DATA", timeout=PATIENCE)
        os.kill(child, signal.SIGKILL)
        until(lambda: len(mail_server.received) >= 1, "the mail that nobody had claimed")
        instance.let_a_minute_pass()  # or the throttle would hold the second try back
        until(lambda: len(mail_server.received) >= 2, "the mail whose lease has ended")
        instance.wait_until_all_is_sent()
        assert len(mail_server.received) == 2
        assert b"To: person-001@example.com" in mail_server.received[0]
        assert b"To: person-000@example.com" in mail_server.received[1]
        assert len(worker.processes()) == 2


# --- stopping


@pytest.mark.parametrize(
    ("stop", "status"),
    [(Server.terminate, 0), (Server.press_ctrl_c, 1)],  # as Celery has it
    ids=["terminate", "press_ctrl_c"],
)
def test_the_email_under_way_is_sent_once_and_the_next_worker_sends_the_rest_at_once(
    instance: Instance, serve: Serve, redis: Redis, people: People, stop, status
):
    asked = people.request_resets(3)
    with HoldingServer() as mail_server:
        worker = run_celery(serve, redis, mail_server.port, "--concurrency", "1")
        mail_server.wait_until_an_email_is_being_sent()
        stop(worker)
        until(lambda: "Warm shutdown" in worker.log(), "the beginning of its end")
        mail_server.go_on()
        before = time.monotonic()
        assert worker.wait() == status
        assert time.monotonic() - before < 10
        assert [mail.rcpt_tos[0] for mail in mail_server.messages] == asked[:1]
        assert instance.query("SELECT attempts, leased FROM outbox") == [(0, False)] * 2

        serve(CeleryWorker, "--concurrency", "1", CELERY_BROKER_URL=redis.url, EMAIL_PORT=mail_server.port)
        instance.wait_until_all_is_sent()
        assert [mail.rcpt_tos[0] for mail in mail_server.messages] == asked  # the oldest first, each once


class HoldingServer(SMTPServer):
    """Holds the first email back until told to go on."""

    def __init__(self) -> None:
        self._under_way, self._go_on = threading.Event(), threading.Event()
        super().__init__(latency=0.05, data_reply=self._hold)

    def wait_until_an_email_is_being_sent(self) -> None:
        assert self._under_way.wait(PATIENCE)

    def go_on(self) -> None:
        self._go_on.set()

    def __exit__(self, *reason) -> None:
        self.go_on()
        super().__exit__(*reason)

    def _hold(self) -> None:
        self._under_way.set()
        self._go_on.wait(PATIENCE)


def test_worker_and_beat_end_soon_while_the_broker_is_down(instance: Instance, serve: Serve):
    settings = {"CELERY_BROKER_URL": f"redis://:{SECRET}@{HOST}:{free_port()}/0", "EMAIL_PORT": free_port()}
    servers = [serve(kind, visit=False, **settings) for kind in (CeleryWorker, CeleryBeat)]
    until(lambda: "Cannot connect" in servers[0].log(), "a worker in vain")
    until(lambda: "does not accept the task" in servers[1].log(), "a beat in vain")
    for server in servers:
        before = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - before < 10


@pytest.mark.parametrize("message", ["garbage", '{"body": "x"}', "[]"])
def test_what_is_no_task_does_not_end_a_worker(
    instance: Instance, serve: Serve, redis: Redis, people: People, message: str
):
    with SMTPServer() as mail_server:
        worker = run_celery(serve, redis, mail_server.port, clean_log=False)
        until(worker.ready, "a worker that waits for tasks")
        redis.execute("LPUSH", "pwreset.deliver", message)
        until(lambda: "Traceback" in worker.log() or "rror" in worker.log(), "a worker that has met it")
        for number in (1, 2):
            people.request_resets(1)
            mail_server.wait_for(number, timeout=PATIENCE)
        instance.wait_until_all_is_sent()


def test_a_broker_that_repeats_the_password_does_not_get_it_into_a_log(instance: Instance, serve: Serve):
    """Redis says what it was told where it does not know a command, as with `rename-command AUTH ""`."""

    def repeat(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(b"-ERR unknown command 'AUTH', with args beginning with: '%b'\r\n" % SECRET.encode())

    with FalseRedis(repeat) as broker:
        settings = {"CELERY_BROKER_URL": broker.url, "EMAIL_PORT": free_port()}
        servers = [serve(kind, visit=False, **settings) for kind in (CeleryWorker, CeleryBeat)]
        until(lambda: "unknown command" in servers[0].log(), "a worker that was turned away")
        until(lambda: "does not accept the task" in servers[1].log(), "a beat that was turned away")
    assert SECRET not in servers[0].log() + servers[1].log()
    assert "beginning with: '[redacted]'" in servers[0].log()


# --- what else may be away


def test_a_mail_server_that_is_away_is_told_of_once_by_each_process_and_all_mail_waits_uncharged(
    instance: Instance, serve: Serve, redis: Redis, people: People
):
    people.request_resets(3)
    with ScriptedServer({"CONNECT": ["421 4.3.2 Not now"] * 3 + [USUAL]}) as mail_server:
        worker = run_celery(serve, redis, mail_server.port)
        until(lambda: mail_server.stages.count("CONNECT") >= 2, "some tries")
        assert instance.query("SELECT attempts, count(*) FROM outbox GROUP BY attempts") == [(0, 3)]
        instance.wait_until_all_is_sent()
        assert len(mail_server.received) == 3
        assert 1 <= worker.log().count(NO_EMAIL_IS_SENT) <= 2


def test_a_database_that_is_away_at_the_start_is_waited_for(
    instance: Instance, serve: Serve, redis: Redis, people: People
):
    people.request_resets(1)
    people.app.extensions["pwreset"].rejected_requests.write()
    instance.database.make_unreachable()
    with SMTPServer() as mail_server:
        worker = run_celery(serve, redis, mail_server.port)
        until(lambda: NO_EMAIL_IS_SENT in worker.log(), "a warning that the database is away")
        instance.database.make_reachable()
        mail_server.wait_for(1, timeout=PATIENCE)
        assert "The database does not answer" in worker.log()


# --- settings and logs

CELERY_NEEDS = "CELERY_BROKER_URL is not set; write redis://host:port/0 or amqp://user:password@host:port//\n"
NO_TABLES = "The database has no tables yet. Run: flask db upgrade\n"
WRONG_KEY = "pwreset cannot start:\n  - OUTBOX_WORKER is 'many': write thread or none.\n"


@pytest.mark.parametrize("command", ["worker", "beat"])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"CELERY_BROKER_URL": None}, CELERY_NEEDS), ({"OUTBOX_WORKER": "many"}, WRONG_KEY), ({}, NO_TABLES)],
    ids=["no broker", "wrong setting", "no tables"],
)
def test_a_start_with_something_missing_ends_at_once_with_one_sentence(
    empty_instance: Instance, redis: Redis, command, settings, sentence
):
    done = empty_instance.run(*APP, command, **{"CELERY_BROKER_URL": redis.url, **settings})
    assert (done.returncode, done.stdout, done.stderr) == (3, "", sentence)


def test_with_log_format_json_every_line_of_the_worker_and_beat_but_the_banner_is_an_object(
    instance: Instance, serve: Serve, redis: Redis, people: People
):
    people.request_resets(1)
    with SMTPServer() as mail_server:
        worker = run_celery(serve, redis, mail_server.port, LOG_FORMAT="json")
        until(lambda: "Email 1 (password_reset) sent" in worker.log(), "the worker's own line")
    lines = worker.log()[worker.log().index("{") :].splitlines()
    records = [json.loads(line) for line in lines]
    assert {"Connected to", "Email 1 (password_reset) sent"} <= {
        message for record in records for message in (record["message"], record["message"][:12])
    }
    lonely = serve(CeleryBeat, visit=False, CELERY_BROKER_URL=f"redis://{HOST}:{free_port()}/0", LOG_FORMAT="json")
    until(lambda: "does not accept the task" in lonely.log(), "a line of beat's own")
    (line,) = [line for line in lonely.log().splitlines() if "does not accept the task" in line]
    assert json.loads(line)["level"] == "WARNING"


# --- TLS


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_broker_must_prove_its_name_before_it_is_told_the_password(instance: Instance, tmp_path, scheme):
    authority = Authority()
    contexts = [authority.untrusted, authority.wrong_host, authority.expired, authority.good]
    heard: list[bytes] = []
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener, contexts, heard))
        thread.start()
        code = CONNECT.replace("{times}", str(len(contexts)))
        url = f"{scheme}://user:{SECRET}@localhost:{listener.getsockname()[1]}/0"
        ca = authority.ca_pem_path(tmp_path)
        done = instance.run("-c", code, CELERY_BROKER_URL=url, SSL_CERT_FILE=ca)
        thread.join()
    assert heard[:3] == [b"", b"", b""], done.stderr
    assert heard[3].startswith({"rediss": b"*", "amqps": b"AMQP"}[scheme])
    assert "CERT_NONE" not in done.stderr and "insecure" not in done.stderr


def listen(listener, contexts, heard):
    for context in contexts:
        plain, _ = listener.accept()
        plain.settimeout(PATIENCE)
        try:
            with context.wrap_socket(plain, server_side=True) as line:
                heard.append(line.recv(1000))
        except OSError:
            heard.append(b"")
            plain.close()
