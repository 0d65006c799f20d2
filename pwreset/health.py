"""`/healthz`, for load balancers: whether this process can serve. It must tell nothing else.

Decides that mail which nobody delivers is said and does not fail the check: every machine would fail it at once, and a
site whose mail waits is better than none.
"""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from pwreset.mail.watch import warn_if_nobody_delivers

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer 200 while the database answers, else 503."""
    try:
        undelivered = warn_if_nobody_delivers()
    except SQLAlchemyError:
        return jsonify(status="unavailable"), 503
    return jsonify(status="mail is not delivered" if undelivered else "ok")
