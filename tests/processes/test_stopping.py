"""After Ctrl-C or SIGTERM no process remains, and an email in progress is sent once or later."""

import threading
import time

import pytest

from pwreset import outbox
from pwreset.extensions import db
from pwreset.request_info import RequestInfo
from tests.support.app import MakeApp, add_user
from tests.support.clock import PATIENCE
from tests.support.instance import Instance, Serve
from tests.support.servers import FlaskRun, Gunicorn, Server
from tests.support.smtp import SMTPServer

SOON = 15.0  # seconds, on a busy machine: less than gunicorn's grace and an email's deadline, which are 30
RELAY = {"EMAIL_HOST": "localhost", "EMAIL_FROM": "accounts@example.com"}
KINDS = [
    pytest.param(FlaskRun, [], id="flask"),
    pytest.param(FlaskRun, ["--debug"], id="flask-debug"),
    pytest.param(Gunicorn, ["--workers", "1"], id="gunicorn"),  # with two, the other may still be starting
]
every_stop = pytest.mark.parametrize("stop", [Server.press_ctrl_c, Server.terminate], ids=lambda stop: stop.__name__)


@every_stop
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_an_idle_server_ends_with_all_its_processes(instance: Instance, serve: Serve, kind, options, stop):
    with SMTPServer() as mail_server:
        server = serve(kind, *options, EMAIL_PORT=mail_server.port, **RELAY)
        before = time.monotonic()
        stop(server)
        assert server.wait() == 0
        assert time.monotonic() - before < SOON
        assert server.processes() == []


@every_stop
@pytest.mark.parametrize("kind", [FlaskRun, Gunicorn])
def test_the_email_under_way_is_sent_once_and_those_behind_it_wait_untouched_for_the_next_start(
    make_app: MakeApp, instance: Instance, serve: Serve, kind, stop
):
    people = ["ann@example.com", "bob@example.com", "cem@example.com"]
    asked_for_by(make_app(), *people)
    before = due(instance)
    with SlowServer() as mail_server:
        one_process = ("--workers", "1") if kind is Gunicorn else ()
        server = serve(kind, *one_process, EMAIL_PORT=mail_server.port, **RELAY)
        mail_server.wait_until_an_email_is_being_sent()
        stop(server)
        mail_server.go_on()
        assert server.wait() == 0
        sent = [mail.rcpt_tos[0] for mail in mail_server.messages]
        assert sent
        assert sent == people[: len(sent)] != people
        assert due(instance) == before[len(sent) :]

        mail_server.latency = 0
        serve(kind, visit=False, EMAIL_PORT=mail_server.port, **RELAY)
        instance.wait_until_all_is_sent()
        assert sorted(mail.rcpt_tos[0] for mail in mail_server.messages) == people


@every_stop
def test_with_the_reloader_an_email_under_way_is_sent_or_left_for_the_next_start(
    make_app: MakeApp, instance: Instance, serve: Serve, stop
):
    asked_for_by(make_app(), "alice@example.com")
    with SlowServer() as mail_server:
        server = serve(FlaskRun, "--debug", EMAIL_PORT=mail_server.port, **RELAY)
        mail_server.wait_until_an_email_is_being_sent()
        stop(server)
        mail_server.go_on()
        server.wait()
        sent_and_noted = instance.waiting() == 0
        if sent_and_noted:
            assert len(mail_server.messages) == 1

        mail_server.latency = 0
        instance.let_leases_end()
        instance.let_a_minute_pass()
        serve(FlaskRun, "--debug", visit=False, EMAIL_PORT=mail_server.port, **RELAY)
        instance.wait_until_all_is_sent()
        mails = mail_server.wait_for(1)
        assert len(mails) in ({1} if sent_and_noted else {1, 2})
        assert len({mail.message["Message-ID"] for mail in mails}) == 1


class SlowServer(SMTPServer):
    """Delays the first email until `go_on` is set, and accepts the others slowly."""

    def __init__(self):
        self._under_way, self._go_on = threading.Event(), threading.Event()
        super().__init__(latency=0.1, data_reply=self._hold)

    def wait_until_an_email_is_being_sent(self):
        assert self._under_way.wait(PATIENCE)

    def go_on(self):
        self._go_on.set()

    def __exit__(self, *reason):
        self.go_on()
        super().__exit__(*reason)

    def _hold(self):
        self._under_way.set()
        self._go_on.wait(PATIENCE)


def asked_for_by(app, *people):
    for person in people:
        add_user(app, person, "seven green lanterns drift")
    with app.app_context():
        for person in people:
            outbox.enqueue("password_reset", person, RequestInfo())
        db.session.commit()


def due(instance):
    return instance.query("SELECT address, run_after, attempts FROM outbox ORDER BY id")
