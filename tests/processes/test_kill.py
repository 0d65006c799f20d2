"""After `kill -9`, accepted requests are emailed after the next start, without a visit."""

from datetime import UTC, datetime

import pytest

from tests.support.app import MakeApp, add_user
from tests.support.clock import PATIENCE, until
from tests.support.instance import Instance, Serve
from tests.support.scripted_smtp import SILENT, USUAL, ScriptedServer
from tests.support.servers import Browser, FlaskRun, Gunicorn
from tests.support.smtp import SMTPServer

# The lease has to outlast the test's own kill on a busy machine.
SHORT_LEASE = {"OUTBOX_LEASE_SECONDS": 4, "EMAIL_DEADLINE": 3.5, "EMAIL_TIMEOUT": 3}
RELAY = {"EMAIL_HOST": "localhost", "EMAIL_FROM": "accounts@example.com"}


@pytest.mark.parametrize("kind", [FlaskRun, Gunicorn])
def test_a_reset_asked_for_before_kill_9_is_emailed_after_the_next_start_without_any_visit(
    make_app: MakeApp, instance: Instance, serve: Serve, kind
):
    add_user(make_app(), "alice@example.com", "seven green lanterns drift")
    with SMTPServer() as mail_server:
        relay = {**RELAY, "EMAIL_PORT": mail_server.port}
        server = serve(kind, OUTBOX_WORKER="none", **relay)
        assert Browser(server).submit("/password-reset/", email="alice@example.com").status == 302
        server.kill9()
        assert instance.waiting() == 1
        assert mail_server.connections == 0
        serve(kind, visit=False, **relay)
        (mail,) = mail_server.wait_for(1, timeout=PATIENCE)
        assert mail.rcpt_tos == ["alice@example.com"]
        instance.wait_until_all_is_sent()


def test_an_email_in_flight_at_kill_9_comes_again_when_its_lease_ends_and_those_behind_it_at_once(
    make_app: MakeApp, instance: Instance, serve: Serve
):
    app = make_app()
    people = ["ann@example.com", "bob@example.com", "cem@example.com"]
    for person in people:
        add_user(app, person, "seven green lanterns drift")
    with ScriptedServer({"DATA": [USUAL, SILENT, USUAL]}) as mail_server:
        settings = {**RELAY, **SHORT_LEASE, "EMAIL_PORT": mail_server.port}
        asking = serve(FlaskRun, OUTBOX_WORKER="none", **settings)
        for person in people:
            Browser(asking).submit("/password-reset/", email=person)
        asking.kill9()

        sending = serve(FlaskRun, visit=False, **settings)
        mail_server.wait_for_stage("DATA", 2, timeout=PATIENCE)
        sending.kill9()
        leased_until = until_of(instance, "bob@example.com")
        assert len(mail_server.received) == 1
        instance.let_a_minute_pass()  # or the throttle would hold the second try back

        serve(FlaskRun, visit=False, **settings)
        until(lambda: len(mail_server.received) >= 2, "the mail that nobody had claimed")
        assert b"To: cem@example.com" in mail_server.received[1]
        until(lambda: len(mail_server.received) >= 3, "the mail whose lease has ended")
        assert datetime.now(UTC) >= leased_until
        assert b"To: bob@example.com" in mail_server.received[2]
        instance.wait_until_all_is_sent()
        assert len(mail_server.received) == 3


def test_a_copy_sent_after_kill_9_has_the_same_message_id_so_that_it_is_recognised(
    make_app: MakeApp, instance: Instance, serve: Serve
):
    add_user(make_app(), "alice@example.com", "seven green lanterns drift")
    with ScriptedServer({"DOT": [SILENT, USUAL]}) as mail_server:  # it has the email, and never says so
        settings = {**RELAY, **SHORT_LEASE, "EMAIL_PORT": mail_server.port}
        server = serve(FlaskRun, **settings)
        Browser(server).submit("/password-reset/", email="alice@example.com")
        mail_server.wait_for_stage("DOT", timeout=PATIENCE)
        server.kill9()
        assert instance.waiting() == 1
        instance.let_a_minute_pass()
        instance.let_leases_end()
        serve(FlaskRun, visit=False, **settings)
        instance.wait_until_all_is_sent()
        first, second = (
            [line for line in mail.splitlines() if line.startswith(b"Message-ID:")] for mail in mail_server.received
        )
        assert first == second != []


def until_of(instance, address):
    ((moment,),) = instance.query("SELECT run_after FROM outbox WHERE address = ?", address)
    return datetime.fromisoformat(str(moment)).replace(tzinfo=UTC)
