"""`/metrics`: the outbox and the counters in the text format of Prometheus.

Decides the names, and who may read them: this machine, or a client with METRICS_TOKEN. Every number is read from the
database for each request, so every process gives the same answer. This module stores no numbers.
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
from pwreset.request_info import host_name

bp = Blueprint("metrics", __name__)
# Headers that proxies add: a request with one of these did not come from this machine.
FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
GAUGES = {
    "due": "Emails that are due.",
    "waiting": "Emails that wait for their next attempt or the end of a cooldown.",
    "failed": "Emails that failed and are kept for the operator.",
}
COUNTERS = {
    Counted.DELIVERED: ("mails_delivered", "Emails that a mail server accepted.", "kind"),
    Counted.RETRIED: ("mails_retried", "Attempts that failed for now.", "kind"),
    Counted.FAILED: ("mails_failed", "Emails that failed.", "kind"),
    Counted.EXPIRED: ("mails_expired", "Emails that could not be sent in time.", "kind"),
    Counted.MERGED: ("mails_merged", "Requests merged into another email to the same account.", "kind"),
    Counted.NO_RECIPIENT: ("mails_unaddressed", "Requests without an account that may get email.", "kind"),
    Counted.COMPLETED: ("resets_completed", "Passwords set through an emailed link.", "purpose"),
    Counted.LIMITED: ("rate_limited", "Requests rejected by a rate limit.", "endpoint"),
}


@bp.get("/metrics")
def metrics() -> Response:
    """Answer in the text format of Prometheus, or 401 or 403 to a client that may not read it."""
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
    """Whether the request comes from this machine, or has METRICS_TOKEN as its bearer token (RFC 6750)."""
    token = current_app.config["METRICS_TOKEN"]
    sent = request.authorization
    if token and sent and sent.type == "bearer" and hmac.compare_digest((sent.token or "").encode(), token.encode()):
        return True
    # Behind a proxy that TRUSTED_PROXIES does not include, all clients have a loopback address; host or headers differ.
    here = is_loopback(request.remote_addr or "") and is_loopback(host_name())
    return here and not any(name in request.headers for name in FORWARDING)


class DatabaseCollector(Collector):
    """Reads the database at each collection."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        for name, number in queue_status.counts().items():
            yield GaugeMetricFamily(f"pwreset_outbox_{name}", GAUGES[name], number)
        oldest = queue_status.oldest_due()
        yield GaugeMetricFamily("pwreset_outbox_oldest_due_seconds", "Age of the oldest due email.", _age(oldest))
        seen = counters.last(Counted.WORKER_HEARTBEAT)
        yield GaugeMetricFamily(
            "pwreset_worker_seen_timestamp_seconds",
            "When a worker last recorded its heartbeat.",
            seen.timestamp() if seen else 0,
        )
        yield _family("requests", "Emails requested.", "kind", queue_status.requests())
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
