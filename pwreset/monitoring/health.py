"""`/healthz`, for load balancers: whether this process can serve. It must reveal nothing else.

A queue that no worker delivers is reported, but does not fail the check: all machines would fail at once, and a site
whose emails wait is better than none. The check is limited in time even if the database is frozen.
"""

from functools import partial

from flask import Blueprint, Flask, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from pwreset.clock import call_with_timeout
from pwreset.monitoring.stall_monitor import warn_if_stalled
from pwreset.state import AppState

DEADLINE = 3.0  # seconds
bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer 200 while the database answers, else 503."""
    state: AppState = current_app.extensions["pwreset"]
    # At most one thread waits for a database that never answers, however many requests come.
    if not state.health_check.acquire(timeout=DEADLINE):
        return jsonify(status="unavailable"), 503
    try:
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 (Flask's way to a thread)
        stalled = call_with_timeout(DEADLINE, partial(_check, app, state))
    except (SQLAlchemyError, TimeoutError):
        return jsonify(status="unavailable"), 503
    return jsonify(status="mail is not delivered" if stalled else "ok")


def _check(app: Flask, state: AppState) -> bool:
    try:
        with app.app_context():
            return warn_if_stalled()
    finally:
        state.health_check.release()
