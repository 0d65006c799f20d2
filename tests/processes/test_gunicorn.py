"""gunicorn does not start in local mode; in public mode each worker process delivers."""

import os
import signal

import pytest

from tests.support.app import MakeApp, add_user
from tests.support.clock import PATIENCE, until
from tests.support.instance import STARTED, Instance, Serve
from tests.support.pages import link_in, path_of
from tests.support.servers import Browser, Gunicorn
from tests.support.smtp import SMTPServer

LOCAL_ONLY = "PUBLIC_URL is not set, so this is local mode, which only `flask run` serves"
GUNICORN = ("-m", "gunicorn", "-b", "127.0.0.1:0")
# How somebody may start it: as the README says, preloaded, past our configuration, and as other servers import it.
STARTS = [
    GUNICORN,
    (*GUNICORN, "--preload"),
    (*GUNICORN, "-c", "/dev/null", "wsgi:app"),
    ("-c", "import wsgi"),
]


def names(arguments):
    return " ".join(arguments)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["default", "preload"])
def test_every_worker_process_delivers_and_the_master_does_not(instance: Instance, serve: Serve, observer, options):
    with SMTPServer() as mail_server:
        server = serve(Gunicorn, *options, EMAIL_PORT=mail_server.port, PYTHONPATH=observer)
        until(lambda: server.log().count(STARTED) == 2, "two workers")
        started_in = {int(line.split()[-1]) for line in server.log().splitlines() if line.startswith(STARTED)}
        assert started_in == set(server.processes()) - {server.pid}
        assert len(started_in) == 2
        Browser(server).submit("/register/", email="new@example.com")
        (mail,) = mail_server.wait_for(1, timeout=PATIENCE)
        assert mail.rcpt_tos == ["new@example.com"]
        assert f"{server.url}/password-reset-confirm/" in mail.message.get_body(("plain",)).get_content()
        instance.wait_until_all_is_sent()
        assert len(mail_server.messages) == 1


def test_a_worker_process_that_dies_is_replaced_by_one_that_delivers(instance: Instance, serve: Serve, observer):
    with SMTPServer() as mail_server:
        server = serve(Gunicorn, "--workers", "1", EMAIL_PORT=mail_server.port, PYTHONPATH=observer)
        (worker,) = set(server.processes()) - {server.pid}
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.log().count(STARTED) == 2, "a second worker")
        until(server._answers, "an answer")
        Browser(server).submit("/register/", email="new@example.com")
        mail_server.wait_for(1, timeout=PATIENCE)


def test_a_reset_from_the_form_to_the_new_password_works_under_gunicorn(
    make_app: MakeApp, instance: Instance, serve: Serve
):
    add_user(make_app(), "alice@example.com", "seven green lanterns drift")
    with SMTPServer() as mail_server:
        server = serve(Gunicorn, EMAIL_PORT=mail_server.port)
        alice = Browser(server)
        alice.submit("/password-reset/", email="alice@example.com")
        link = path_of(link_in(mail_server.wait_for(1, timeout=PATIENCE)[0].message))
        chosen = "quiet rivers under old bridges"
        done = alice.submit(link, new_password1=chosen, new_password2=chosen)
        assert done.headers["Location"] == "/password-reset-complete/"
        assert alice.submit("/login/", email="alice@example.com", password=chosen).headers["Location"] == "/account/"


@pytest.mark.parametrize("arguments", STARTS, ids=names)
def test_local_mode_is_refused_with_a_sentence_and_at_once(instance: Instance, arguments):
    done = instance.run(*arguments)
    assert done.returncode != 0
    assert LOCAL_ONLY in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("arguments", [GUNICORN, *STARTS[2:]], ids=names)
def test_everything_that_is_wrong_with_the_settings_is_listed_at_once(instance: Instance, arguments):
    wrong = {"PUBLIC_URL": "http://accounts.example.com", "SECRET_KEY": "hunter2", "OUTBOX_WORKER": "sometimes"}
    done = instance.run(*arguments, **wrong, EMAIL_TIMEOUT="soon")
    assert done.returncode != 0
    for name in (*wrong, "EMAIL_TIMEOUT", "EMAIL_USER"):
        assert f"  - {name} " in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_flask_run_lists_everything_that_is_wrong_with_the_settings_too(instance: Instance):
    done = instance.run("-m", "flask", "run", OUTBOX_WORKER="sometimes", EMAIL_TIMEOUT="soon")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: pwreset cannot start:\n")
    assert done.stderr.count("\n  - ") == 2
    assert "Traceback" not in done.stderr


def test_a_database_without_tables_ends_gunicorn_with_one_line_per_worker(empty_instance: Instance):
    settings = {"PUBLIC_URL": "http://127.0.0.1:1", "SECRET_KEY": Gunicorn.secret_key, "EMAIL_HOST": "localhost"}
    done = empty_instance.run(*GUNICORN, "--workers", "1", **settings, EMAIL_FROM="accounts@example.com")
    assert done.returncode != 0
    assert done.stderr.count("The database has no tables yet. Run: flask db upgrade\n") == 1
    assert "Traceback" not in done.stderr
