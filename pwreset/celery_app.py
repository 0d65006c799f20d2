"""Celery, for teams that run it: beat rings every second, and a ring makes a worker deliver until nothing is due.

Decides that the outbox stays the only truth: a ring carries nothing, so a broker that is away, stuck or emptied loses
nothing, and only the next ring that arrives matters. No request imports this module or speaks to the broker. Start
`celery -A pwreset.celery_app worker` on each machine and, on one or more, `... beat`.
"""

from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue

from celery import Celery, Task
from celery.signals import setup_logging, worker_shutting_down
from flask import Flask

from config import ConfigError
from pwreset import create_app
from pwreset.extensions import db
from pwreset.logs import hide_password_of, log_to_console
from pwreset.outbox.celery_settings import RING, celery_settings
from pwreset.outbox.worker import Worker
from pwreset.startup import refuse, require_schema


def celery_init_app(app: Flask) -> Celery:
    """Bind Celery to an application, as Flask's documentation does: tasks run in its context."""

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(celery_settings(app.config["CELERY_BROKER_URL"]))
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def _application() -> Flask:
    try:
        app = create_app()
    except ConfigError as error:
        abort_startup(error.message)
    if app.config["CELERY_BROKER_URL"] is None:
        refuse("CELERY_BROKER_URL is not set; write redis://host:port/0 or amqp://user:password@host:port//")
    hide_password_of(app.config["CELERY_BROKER_URL"])
    log_to_console(app.config["LOG_FORMAT"])
    require_schema(app)
    with app.app_context():
        db.engine.dispose()  # a connection must not be shared over the fork
    return app


flask_app = _application()
celery_app = celery_init_app(flask_app)
# Without a lock: one that a killed process held would stay taken.
stopping = RawValue(c_bool, False)  # noqa: FBT003 (ctypes takes it so)
worker = Worker(flask_app, should_stop=lambda: stopping.value)


@celery_app.task(name=RING)
def ring() -> None:
    """Deliver what is due."""
    worker.ring()


@worker_shutting_down.connect
def stop_between_two_mails(**_: object) -> None:
    """End the pass under way in every process of the pool, so that a warm shutdown is a short one."""
    stopping.value = True


@setup_logging.connect
def leave_logging_alone(**_: object) -> None:
    """Keep Celery from setting up logging: it is done, and it redacts."""
