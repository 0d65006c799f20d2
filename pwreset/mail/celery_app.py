"""Celery, for teams that run it: beat rings every second, and a ring makes a worker deliver until nothing is due.

Decides how rings travel, and that the outbox stays the only truth: a ring carries nothing, so a broker that is away,
stuck or emptied loses nothing, and only the next ring that arrives matters. No request imports this module or speaks
to the broker. Start `celery -A pwreset.mail.celery_app worker` on each machine and, on one, the same with `beat`.
"""

from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery import Celery, Task
from celery.signals import setup_logging, worker_shutting_down
from flask import Flask
from kombu.entity import Exchange, Queue

from config import ConfigError
from pwreset import create_app
from pwreset.extensions import db
from pwreset.logs import log_to_console
from pwreset.mail.worker import Worker
from pwreset.serving import refuse, require_schema

RINGS = "pwreset.rings"
# What keeps a broker that answers no more from holding a worker for ever, in seconds: each client has its own words.
REDIS_OPTIONS = {
    "socket_connect_timeout": 4,
    "socket_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
AMQP_OPTIONS = {"read_timeout": 15, "write_timeout": 5}


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


def celery_settings(broker_url: str) -> dict[str, Any]:
    """Return Celery's own settings.

    Args:
        broker_url: the setting CELERY_BROKER_URL.
    """
    # The default exchange needs no binding, which an emptied Redis would have lost; of old rings RabbitMQ keeps few.
    queue = Queue(RINGS, Exchange(""), RINGS, durable=False, queue_arguments={"x-max-length": 10})
    return {
        "broker_url": broker_url,
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": 4,
        "broker_heartbeat": 10,
        "broker_transport_options": REDIS_OPTIONS if broker_url.startswith("redis") else AMQP_OPTIONS,
        "beat_max_loop_interval": 1,
        "beat_schedule": {"ring": {"task": "pwreset.ring", "schedule": 1.0, "options": {"expires": 10}}},
        "beat_scheduler": "celery.beat:Scheduler",  # with nothing to remember, it keeps no file
        "task_default_exchange": "",
        "task_default_queue": RINGS,
        "task_default_routing_key": RINGS,
        "task_ignore_result": True,
        "task_publish_retry_policy": {"max_retries": None, "interval_start": 0.2, "interval_max": 2},
        "task_queues": [queue],
        "worker_enable_remote_control": False,
        "worker_prefetch_multiplier": 1,
    }


def _application() -> Flask:
    try:
        app = create_app()
    except ConfigError as error:
        refuse(error.message)
    if app.config["CELERY_BROKER_URL"] is None:
        refuse("CELERY_BROKER_URL is not set; write redis://host:port/0 or amqp://user:password@host:port//")
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


@celery_app.task(name="pwreset.ring")
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
