"""`/healthz`, for load balancers: whether this process can serve. It must tell nothing else.

Decides that mail which nobody delivers is said and does not fail the check: every machine would fail it at once, and a
site whose mail waits is better than none. And that an answer comes in time, also where the database is frozen.
"""

import threading
from functools import partial

from flask import Blueprint, Flask, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from pwreset.clock import call_with_timeout
from pwreset.monitoring.stall_monitor import warn_if_stalled

DEADLINE = 3.0  # seconds
bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer 200 while the database answers, else 503."""
    # One thread at most waits for a database that never answers, however often this is asked.
    asking = current_app.extensions.setdefault("pwreset_asking", threading.Lock())
    if not asking.acquire(timeout=DEADLINE):
        return jsonify(status="unavailable"), 503
    try:
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 (Flask's way to a thread)
        undelivered = call_with_timeout(DEADLINE, partial(_ask, app, asking))
    except (SQLAlchemyError, TimeoutError):
        return jsonify(status="unavailable"), 503
    return jsonify(status="mail is not delivered" if undelivered else "ok")


def _ask(app: Flask, asking: threading.Lock) -> bool:
    try:
        with app.app_context():
            return warn_if_stalled()
    finally:
        asking.release()
