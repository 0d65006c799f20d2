"""Celery, for teams that run it: beat sends the task `deliver` every second, and a worker then sends what is due.

The outbox alone knows what is due: the task carries no address and no token, so a broker that is down, stuck or emptied
delays emails and loses none. No request imports this module or connects to the broker. Start
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
from pwreset.logs import hide_password_of, log_to_console
from pwreset.outbox.worker import Worker
from pwreset.startup import abort_startup, require_schema

# The default exchange needs no binding, which an emptied Redis would lose, and no permission to declare it.
QUEUE = Queue("pwreset.deliver", Exchange(""), "pwreset.deliver")
REDIS_TIMEOUTS = {"socket_connect_timeout": 4, "socket_timeout": 5, "health_check_interval": 10}
RABBITMQ_TIMEOUTS = {"read_timeout": 5, "write_timeout": 5}
SETTINGS = {
    "beat_schedule": {"deliver": {"task": "pwreset.deliver", "schedule": 1.0}},
    "beat_scheduler": "pwreset.celery_app:DeliverScheduler",
    "broker_connection_max_retries": None,  # without end
    "broker_connection_retry_on_startup": True,
    "broker_heartbeat": 10,  # seconds; RabbitMQ's default would notice a dead connection after two minutes
    # Seconds that a client waits for a broker that does not answer; without end by default.
    "broker_transport_options": REDIS_TIMEOUTS | RABBITMQ_TIMEOUTS,  # each client ignores the other's
    "task_default_exchange": "",  # or Celery replaces that of QUEUE
    "task_default_queue": QUEUE.name,
    "task_ignore_result": True,
    "task_publish_retry": False,  # the next second is another try
    "task_queues": [QUEUE],
    "worker_cancel_long_running_tasks_on_connection_loss": True,  # there are none; False logs a warning each time
    "worker_consumer": "pwreset.celery_app:LastingConsumer",
    "worker_enable_remote_control": False,  # it needs a queue for each worker
    "worker_prefetch_multiplier": 1,  # or a busy worker keeps the task from an idle one
}
# By default, kombu accepts any certificate from Redis, and a certificate for any name from RabbitMQ.
TLS = {"rediss": {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "amqps": {"server_hostname": None}}
logger = logging.getLogger(__name__)


class DeliverScheduler(Scheduler):
    """Beat's scheduler: sends the task every second unless one waits in the queue, and never ends because of an error.

    Celery's own waits for an hour after the clock was set back by an hour, ends when the broker rejects the password,
    and fills the queue while no worker runs: `expires` removes nothing from Redis, and compares two machines' clocks.
    """

    max_interval = 1.0
    _time_to_warn = staticmethod(at_most_every(60))

    def tick(self, *_: object, **__: object) -> float:
        """Send the task, and return the seconds to wait."""
        try:
            self._send_unless_one_waits()
        except Exception as error:  # noqa: BLE001 (the next second is another try, whatever the error)
            self.close()
            if self._time_to_warn():
                kind = type(error.__cause__ or error).__name__
                logger.warning("The broker does not take the task (%s). Until it does, emails wait.", kind)
        return self.max_interval

    def _send_unless_one_waits(self) -> None:
        self.connection.ensure_connection(max_retries=0)
        if QUEUE(self.connection.default_channel).queue_declare().message_count == 0:
            self.apply_async(self.schedule["deliver"], producer=self.producer, advance=False)


class LastingConsumer(Consumer):
    """The worker's consumer, which connects again after every error.

    Celery's own ends the worker when the broker rejects the password, becomes a replica or sends what is not a task.
    If it went on, it would connect six times a second and log each failure.
    """

    _is_first_in_a_minute = staticmethod(at_most_every(60))

    def __init__(self, *args: Any, worker_options: dict[str, Any], **kwargs: Any) -> None:
        # Workers do not need to know each other, and the broker needs no queues for it.
        alone = dict.fromkeys(("without_mingle", "without_gossip", "without_heartbeat"), True)
        super().__init__(*args, worker_options=worker_options | alone, **kwargs)
        self.connection_errors = (Exception,)

    def connect(self) -> Any:
        """Return a connection, ten seconds later if it is not the first one in a minute."""
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
    hide_password_of(url)
    log_to_console(app.config["LOG_FORMAT"])
    require_schema(app)
    with app.app_context():
        db.engine.dispose()  # a connection must not be shared over the fork
    tls = TLS.get(url.partition(":")[0], False)
    app.config["CELERY"] = SETTINGS | {"broker_url": url, "broker_use_ssl": tls}
    return app


flask_app = _create_flask_app()
celery_app = celery_init_app(flask_app)
stopping = RawValue(c_bool, False)  # noqa: FBT003 (without a lock, which a killed process would keep)
worker = Worker(flask_app, should_stop=lambda: stopping.value)


@celery_app.task(name="pwreset.deliver")
def deliver() -> None:
    """Send what is due."""
    worker.deliver()


@worker_shutting_down.connect
def stop_after_current_email(**_: object) -> None:
    """End the running tasks in all processes of the pool, so that a warm shutdown is short."""
    stopping.value = True


@setup_logging.connect
def keep_logging_setup(**_: object) -> None:
    """Keep Celery from setting up logging, which is set up already, and redacts."""
