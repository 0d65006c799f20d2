"""How rings travel: what Celery is told about the broker, and the two parts of it that did not bear every outage.

Decides that whatever goes wrong with a broker is tried again without haste, without end, and without a word of the
broker's in a log where that is ours to say. It must not know what a ring is for.
"""

import logging
import ssl
import time
from contextlib import suppress
from typing import Any

from celery.beat import Scheduler
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.entity import TRANSIENT_DELIVERY_MODE, Exchange, Queue

from pwreset.clock import at_most_every

RING = "pwreset.ring"  # the task
# The default exchange needs no binding, which an emptied Redis would have lost.
RINGS = Queue("pwreset.rings", Exchange("", delivery_mode=TRANSIENT_DELIVERY_MODE), "pwreset.rings")
# What keeps a broker that answers no more from holding anybody for ever, in seconds: each client has its own words.
REDIS_OPTIONS = {"socket_connect_timeout": 4, "socket_timeout": 5, "health_check_interval": 10}
AMQP_OPTIONS = {"read_timeout": 5, "write_timeout": 5}
# Left to themselves, one client would take any certificate, and the other one that is somebody else's.
TLS = {"rediss": {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "amqps": {"server_hostname": None}}
logger = logging.getLogger(__name__)


class Bell(Scheduler):
    """Beat's scheduler: rings every second, by no clock that can be set, and never while a ring still waits.

    So no more than one waits for a worker, however long there is none, and a second beat does no harm.
    """

    max_interval = 1.0
    _time_to_warn, _heard = at_most_every(60), False

    def tick(self, *_: object, **__: object) -> float:
        """Ring, and return how long to wait, in seconds."""
        try:
            self._ring()
        except Exception as error:  # noqa: BLE001 (whatever it is, the next second may be better)
            self.close()
            if self._time_to_warn():
                self._heard = False
                kind = type(error.__cause__ or error).__name__  # and not its text, which may repeat a password
                logger.warning("The broker takes no ring (%s), and without one mail waits", kind)
        else:
            if not self._heard:
                self._heard = True
                logger.info("The broker takes rings, one a second")
        return self.max_interval

    def close(self) -> None:
        """Hang up, without a farewell: a broker that is stuck would not answer it."""
        connection = self.__dict__.pop("connection", None)
        with suppress(Exception):
            connection.collect()

    def _ring(self) -> None:
        self.connection.ensure_connection(max_retries=0)
        _, waiting, _ = RINGS(self.connection.default_channel).queue_declare()
        if not waiting:
            self.app.tasks[RING].apply_async(connection=self.connection, retry=False)


class Listener(Consumer):
    """What waits for rings in a worker. Alone, and in no haste to come back to a broker that turns it away.

    Such as a Redis that has become a replica, or a changed password: Celery would give up, or ask six times a second.
    """

    _may_hurry = at_most_every(60)

    def __init__(self, *args: Any, worker_options: dict[str, Any], **kwargs: Any) -> None:
        # Workers have nothing to tell each other, and need no queues for it.
        alone = dict.fromkeys(("without_mingle", "without_gossip", "without_heartbeat"), True)
        super().__init__(*args, worker_options={**worker_options, **alone}, **kwargs)
        self.connection_errors = (
            Exception,
        )  # what is no ring, or no word of a broker, ends a connection and no worker

    def connect(self) -> Any:
        """Return a connection; a second one within a minute takes its time."""
        for _ in range(0 if self._may_hurry() else 10):
            maybe_shutdown()
            time.sleep(1)
        return super().connect()


# What no broker changes, under Celery's own names.
FIXED = {
    "broker_channel_error_retry": True,
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    "broker_connection_timeout": 4,
    "broker_heartbeat": 10,
    "beat_scheduler": f"{__name__}:{Bell.__name__}",
    "task_default_exchange": "",
    "task_default_queue": RINGS.name,
    "task_default_routing_key": RINGS.name,
    "task_ignore_result": True,
    "task_queues": [RINGS],
    "worker_cancel_long_running_tasks_on_connection_loss": True,  # there are none; False warns at each loss
    "worker_consumer": f"{__name__}:{Listener.__name__}",
    "worker_enable_prefetch_count_reduction": False,
    "worker_enable_remote_control": False,
    "worker_prefetch_multiplier": 1,
}


def celery_settings(broker_url: str) -> dict[str, Any]:
    """Return Celery's own settings.

    Args:
        broker_url: the setting CELERY_BROKER_URL.
    """
    scheme = broker_url.partition(":")[0]
    return FIXED | {
        "broker_url": broker_url,
        "broker_use_ssl": TLS.get(scheme, False),
        "broker_transport_options": REDIS_OPTIONS if scheme.startswith("redis") else AMQP_OPTIONS,
    }
