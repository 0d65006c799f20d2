"""What changes when the application is served and not only imported.

Decides who may serve it, that the tables must be there first, and which process runs the worker: the one that serves
under `flask run`, and each gunicorn worker after its fork. Commands, tests and scripts start no thread.
"""

import logging
import signal
import threading
from types import FrameType
from typing import NoReturn

import click
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy.exc import OperationalError
from werkzeug.serving import is_running_from_reloader

from config import ROOT
from pwreset.extensions import db
from pwreset.mail.worker import Worker

LOCAL_ONLY = (
    "PUBLIC_URL is not set, so this is local mode, which only `flask run` serves: behind another server every visitor "
    "would look like this machine. Set PUBLIC_URL, for example https://accounts.example.com."
)
BOOT_ERROR = 3  # gunicorn starts a worker that ends with another status again, and again without end
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def init_app(app: Flask) -> None:
    """Prepare an application that `flask run` serves; for everybody else nothing happens here."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return
    log_to_console()
    try:
        check_schema(app)
    except OperationalError as error:
        msg = f"The database does not answer ({type(error).__name__}). Check DATABASE_URL."
        raise click.ClickException(msg) from None
    reloads = context.params.get("reload")
    if is_running_from_reloader() or not (app.debug if reloads is None else reloads):
        start_worker(app)


def require_public(app: Flask) -> None:
    """Refuse local mode to every server but `flask run`.

    Raises:
        SystemExit: with the reason.
    """
    if app.config["PUBLIC_URL"] is None and click.get_current_context(silent=True) is None:
        refuse(LOCAL_ONLY)


def refuse(reason: str) -> NoReturn:
    """End a server's process with a sentence, so that no server tries it again.

    Raises:
        SystemExit: always.
    """
    click.echo(reason, err=True)
    raise SystemExit(BOOT_ERROR)


def check_schema(app: Flask) -> None:
    """Refuse a database without our tables, or with older ones.

    Raises:
        click.ClickException: with the command that mends it.
    """
    with app.app_context(), db.engine.connect() as connection:
        present = set(MigrationContext.configure(connection).get_current_heads())
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    known = {revision.revision for revision in scripts.walk_revisions()}
    # A revision that this code does not know is a newer one: an upgrade is under way, and the old code still serves.
    if not present or (present <= known and present != set(scripts.get_heads())):
        state = "is older than this code" if present else "has no tables yet"
        msg = f"The database {state}. Run: flask db upgrade"
        raise click.ClickException(msg)


def start_worker(app: Flask) -> None:
    """Start the thread that delivers mail, unless OUTBOX_WORKER is `none`; call it in the process that serves."""
    if app.config["OUTBOX_WORKER"] == "thread":
        Worker(app).start()
        _end_in_order_on_sigterm()


def start_under_gunicorn(app: Flask) -> None:
    """Prepare a gunicorn worker process, after its fork: `post_worker_init` in `gunicorn.conf.py` calls it."""
    # A terminal's Ctrl-C comes here too, right before the master's own signal, and gunicorn's handler deadlocks when
    # it interrupts itself (27.0.1, gthread). The master's signal is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_console()
    try:
        check_schema(app)
    except click.ClickException as error:
        refuse(error.message)
    except OperationalError:  # the database may come back before the first visitor; /healthz tells
        logging.getLogger(__name__).warning("The database does not answer.")
    start_worker(app)


def log_to_console() -> None:
    """Print the application's own log lines, where nobody has set up logging."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _end_in_order_on_sigterm() -> None:
    # By default SIGTERM ends Python at once, in mid-send. gunicorn and the reloader have handlers of their own.
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
