"""`/metrics`, for Prometheus: what the outbox and the counters say, in its text format.

Decides the names, and who may read: this machine, or whoever holds METRICS_TOKEN. Every number comes from the database
at the moment of asking, so that it does not matter which process answers. It must not keep a number of its own.
"""

import hmac
from collections.abc import Iterator
from datetime import datetime

from flask import Blueprint, Response, abort, current_app, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from config import is_loopback
from pwreset.clock import utcnow
from pwreset.monitoring import counters, queue_status
from pwreset.monitoring.counters import Counted
from pwreset.web.security import host_name

bp = Blueprint("metrics", __name__)
# What a proxy adds: with one of these the request came from further away than this machine.
FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
GAUGES = {
    "due": "Mails that should be on their way.",
    "waiting": "Mails that wait for a later time: the next try, or their account's turn.",
    "failed": "Mails that failed for good and are kept for the operator.",
}
COUNTERS = {
    Counted.DELIVERED: ("mails_delivered", "Mails that a mail server accepted.", "kind"),
    Counted.RETRIED: ("mails_retried", "Tries that failed for now.", "kind"),
    Counted.FAILED: ("mails_failed", "Mails that failed for good.", "kind"),
    Counted.EXPIRED: ("mails_expired", "Mails that could not be sent in time.", "kind"),
    Counted.MERGED: ("mails_merged", "Requests that another mail to the same account answered.", "kind"),
    Counted.NO_RECIPIENT: ("mails_unaddressed", "Requests for nobody who may be mailed.", "kind"),
    Counted.COMPLETED: ("resets_completed", "Passwords set through a mailed link.", "purpose"),
    Counted.LIMITED: ("rate_limited", "Requests refused for coming too often.", "endpoint"),
}


@bp.get("/metrics")
def metrics() -> Response:
    """Answer in Prometheus's text format; 401 or 403 to whoever may not read."""
    if not may_read():
        abort(
            Response("Unauthorized\n", 401, {"WWW-Authenticate": "Bearer"})
            if current_app.config["METRICS_TOKEN"]
            else 403
        )
    registry = CollectorRegistry()
    registry.register(DatabaseCollector())
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def may_read() -> bool:
    """Whether the request comes from this machine, or carries METRICS_TOKEN as a bearer token (RFC 6750)."""
    token, sent = current_app.config["METRICS_TOKEN"], request.authorization
    if token and sent and sent.type == "bearer" and hmac.compare_digest((sent.token or "").encode(), token.encode()):
        return True
    # Behind a proxy that TRUSTED_PROXIES does not count, everybody has a loopback address; name or headers tell.
    here = is_loopback(request.remote_addr or "") and is_loopback(host_name())
    return here and not any(name in request.headers for name in FORWARDING)


class DatabaseCollector(Collector):
    """Asks the database at each collection; `describe` keeps the registry from asking at registration."""

    def describe(self) -> list[Metric]:
        """Return nothing: the names are fixed here, and clash with nobody's."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        for name, number in queue_status.counts().items():
            yield GaugeMetricFamily(f"pwreset_outbox_{name}", GAUGES[name], number)
        oldest = queue_status.oldest_due()
        yield GaugeMetricFamily("pwreset_outbox_oldest_due_seconds", "Age of the oldest due mail.", _age(oldest))
        seen = counters.last(Counted.WORKER_HEARTBEAT)
        yield GaugeMetricFamily(
            "pwreset_worker_seen_timestamp_seconds", "When a worker last took a mail.", seen.timestamp() if seen else 0
        )
        yield _family("requests", "Mails asked for.", "kind", queue_status.requests())
        totals = counters.totals()
        for counted, (name, meaning, label) in COUNTERS.items():
            yield _family(name, meaning, label, {kind: n for (key, kind), n in totals.items() if key == counted})


def _age(moment: datetime | None) -> float:
    return max((utcnow() - moment).total_seconds(), 0) if moment else 0


def _family(name: str, meaning: str, label: str, numbers: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"pwreset_{name}", meaning, labels=[label])
    for kind, number in numbers.items():
        family.add_metric([kind], number)
    return family
