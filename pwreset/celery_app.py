"""Celery, for teams that run it: beat sends the task `deliver` every second, and a worker sends the emails then due.

Only the outbox records which emails are due. The task contains no address and no token, so a broker that fails or loses
its queue delays emails but loses none. No request imports this module or connects to the broker. Start
`celery -A pwreset.celery_app worker` on each machine that delivers and, on one or more, `... beat`.
"""

import logging
import ssl
import time
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery import Celery, Task
from celery.beat import Scheduler
from celery.signals import setup_logging, worker_shutting_down
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from flask import Flask
from kombu.entity import Exchange, Queue

from config import ConfigError
from pwreset import create_app
from pwreset.clock import at_most_every
from pwreset.extensions import db
from pwreset.logs import log_to_console, redact_password_of
from pwreset.outbox.worker import Worker
from pwreset.startup import abort_startup, require_schema

# The default exchange needs no binding, which an emptied Redis would lose, and no permission to declare it.
QUEUE = Queue("pwreset.deliver", Exchange(""), "pwreset.deliver")
REDIS_TIMEOUTS = {"socket_connect_timeout": 4, "socket_timeout": 5, "health_check_interval": 10}
RABBITMQ_TIMEOUTS = {"read_timeout": 5, "write_timeout": 5}
SETTINGS = {
    "beat_schedule": {"deliver": {"task": "pwreset.deliver", "schedule": 1.0}},
    "beat_scheduler": "pwreset.celery_app:DeliverScheduler",
    "broker_connection_max_retries": None,  # no limit
    "broker_connection_retry_on_startup": True,
    "broker_heartbeat": 10,  # seconds; RabbitMQ's default would notice a dead connection after two minutes
    # Seconds to wait for a broker that does not answer; there is no limit by default.
    "broker_transport_options": REDIS_TIMEOUTS | RABBITMQ_TIMEOUTS,  # each client ignores the other's
    "task_default_exchange": "",  # otherwise Celery replaces the exchange of QUEUE
    "task_default_queue": QUEUE.name,
    "task_ignore_result": True,
    "task_publish_retry": False,  # the next second brings another attempt
    "task_queues": [QUEUE],
    "worker_cancel_long_running_tasks_on_connection_loss": True,  # no task is long; False logs a warning each time
    "worker_consumer": "pwreset.celery_app:ReconnectingConsumer",
    "worker_enable_remote_control": False,  # it needs a queue for each worker
    "worker_prefetch_multiplier": 1,  # otherwise a busy worker reserves the task, and an idle one gets none
}
# By default, kombu accepts any certificate from Redis, and a certificate for any name from RabbitMQ.
TLS = {"rediss": {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "amqps": {"server_hostname": None}}
logger = logging.getLogger(__name__)


class DeliverScheduler(Scheduler):
    """Beat's scheduler: sends the task every second unless one waits in the queue, and continues after every error.

    Celery's own scheduler sends nothing for an hour if the clock is set back by an hour, exits if the broker rejects
    the password, and fills the queue while no worker runs: `expires` removes nothing from Redis, and compares the
    clocks of two machines.
    """

    max_interval = 1.0
    _warning_is_due = staticmethod(at_most_every(60))

    def tick(self, *_: object, **__: object) -> float:
        """Send the task, and return how many seconds to wait."""
        try:
            self._send_unless_one_waits()
        except Exception as error:  # noqa: BLE001 (any error may be gone in the next second)
            self.close()
            if self._warning_is_due():
                kind = type(error.__cause__ or error).__name__
                logger.warning("The broker does not accept the task (%s). Emails wait until it does.", kind)
        return self.max_interval

    def _send_unless_one_waits(self) -> None:
        self.connection.ensure_connection(max_retries=0)
        if QUEUE(self.connection.default_channel).queue_declare().message_count == 0:
            self.apply_async(self.schedule["deliver"], producer=self.producer, advance=False)


class ReconnectingConsumer(Consumer):
    """The worker's consumer, which connects again after every error.

    Celery's own consumer ends the worker if the broker rejects the password, becomes a replica or sends a message that
    is not a task. `connect` waits, because Celery would otherwise connect six times a second and log each failure.
    """

    _is_first_in_a_minute = staticmethod(at_most_every(60))

    def __init__(self, *args: Any, worker_options: dict[str, Any], **kwargs: Any) -> None:
        # Workers do not need to exchange messages with each other, which would take more queues.
        standalone = dict.fromkeys(("without_mingle", "without_gossip", "without_heartbeat"), True)
        super().__init__(*args, worker_options=worker_options | standalone, **kwargs)
        self.connection_errors = (Exception,)

    def connect(self) -> Any:
        """Return a connection; wait ten seconds first, unless this is the first attempt in a minute."""
        for _ in range(0 if self._is_first_in_a_minute() else 10):
            maybe_shutdown()
            time.sleep(1)
        return super().connect()


def celery_init_app(app: Flask) -> Celery:
    """Create Celery for an application, as Flask's documentation does: tasks run in its context."""

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def _create_flask_app() -> Flask:
    try:
        app = create_app()
    except ConfigError as error:
        abort_startup(error.message)
    url = app.config["CELERY_BROKER_URL"]
    if url is None:
        abort_startup("CELERY_BROKER_URL is not set; write redis://host:port/0 or amqp://user:password@host:port//")
    redact_password_of(url)
    log_to_console(app.config["LOG_FORMAT"])
    require_schema(app)
    with app.app_context():
        db.engine.dispose()  # a connection must not be shared over the fork
    tls = TLS.get(url.partition(":")[0], False)
    app.config["CELERY"] = SETTINGS | {"broker_url": url, "broker_use_ssl": tls}
    return app


flask_app = _create_flask_app()
celery_app = celery_init_app(flask_app)
stopping = RawValue(c_bool, False)  # noqa: FBT003 (no lock: a process that is killed would never release it)
worker = Worker(flask_app, should_stop=lambda: stopping.value)


@celery_app.task(name="pwreset.deliver")
def deliver() -> None:
    """Send the emails that are due."""
    worker.deliver()


@worker_shutting_down.connect
def stop_after_current_email(**_: object) -> None:
    """End the running tasks in all processes of the pool, so that a warm shutdown is short."""
    stopping.value = True


@setup_logging.connect
def keep_logging_setup(**_: object) -> None:
    """Keep Celery from replacing our logging setup, which redacts secrets."""
