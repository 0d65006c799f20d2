"""The error pages: one template with a status, a message and a link to continue.

Pages for a status of 500 or more must not use the database, which may be the cause.
"""

import time
from contextlib import suppress

from flask import Flask, current_app, render_template, request
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from sqlalchemy import exc
from werkzeug.exceptions import HTTPException

from pwreset.accounts.login_throttle import LoginThrottled
from pwreset.clock import humanize_wait
from pwreset.database import UNAVAILABLE
from pwreset.extensions import limiter
from pwreset.request_info import current_request_info
from pwreset.web.security import CrossOriginForm

MESSAGES: dict[int | type[Exception], tuple[str, str]] = {
    400: ("Bad request", "The request could not be understood. Go back and try again."),
    403: ("Forbidden", "You may not see this page."),
    404: ("Page not found", "There is nothing at this address. If you followed a link, check that it is whole."),
    405: ("Method not allowed", "This page can't be used in this way."),
    411: ("Length required", "What was sent did not say how long it is."),
    413: ("Too much at once", "What was sent is larger than this site takes."),
    429: ("Too many tries", "They came from your network, which has to wait. Try again in {wait}."),
    500: ("Something went wrong", "The mistake is ours and has been noted. Try again in a moment."),
    503: ("Not available right now", "What you sent was not taken in. Try again in a moment."),
    LoginThrottled: (
        "Too many failed tries",
        "Wrong passwords for this address came from your network. Try again in {wait}, or reset the password.",
    ),
    CSRFError: (
        "This form has expired",
        "You logged in, logged out or set a password elsewhere, or this browser keeps no cookies. Open the form again.",
    ),
    CrossOriginForm: (
        "This form came from another address",
        (
            "It was opened under another name, port or scheme than this site has."
            " Open the site's own address and try again."
        ),
    ),
}


def init_app(app: Flask) -> None:
    """Bind the pages to the application."""
    app.register_error_handler(HTTPException, show)
    app.register_error_handler(LoginThrottled, show_login_throttled)
    for unavailable in UNAVAILABLE:
        app.register_error_handler(unavailable, show_unavailable)


def show(error: HTTPException) -> tuple[str, int, dict[str, str]]:
    """Render the page of an HTTP error."""
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, UNAVAILABLE):  # raised in an error page, which looks up who is logged in
        return show_unavailable(cause)
    code = error.code or 500
    title, message = MESSAGES.get(type(error)) or MESSAGES.get(code, (error.name, "Go back and try again."))
    if isinstance(error, RateLimitExceeded):
        current_app.extensions["pwreset"].rejected_requests.add(request.endpoint or "", current_request_info())
        return show_wait(_seconds_left(), title, message)
    has_page = request.url_rule is not None and "GET" in (request.url_rule.methods or ())
    retry = request.path if isinstance(error, CSRFError) and has_page else None
    page = render_template("error.html", code=code, title=title, message=message, retry_url=retry)
    return page, code, dict(error.get_headers())


def show_login_throttled(error: LoginThrottled) -> tuple[str, int, dict[str, str]]:
    """Render the page of a throttled login; it is the same with and without an account."""
    return show_wait(error.retry_after, *MESSAGES[LoginThrottled], offer_reset=True)


def show_wait(seconds: int, title: str, message: str, *, offer_reset: bool = False) -> tuple[str, int, dict[str, str]]:
    """Render a 429 that states how long to wait, also in the Retry-After header (RFC 9110 section 10.2.3)."""
    words = {"title": title, "message": message.format(wait=humanize_wait(seconds))}
    return render_template("error.html", code=429, reset=offer_reset, **words), 429, {"Retry-After": str(seconds)}


def _seconds_left() -> int:
    with suppress(Exception):  # Redis may have counted this request and failed since
        if limiter.current_limit:
            # At `reset_time`, the window is still full.
            return int(limiter.current_limit.window.reset_time - time.time()) + 1
    return 60


def show_unavailable(error: exc.SQLAlchemyError) -> tuple[str, int, dict[str, str]]:
    """Render the page for a database that does not answer; it is the same for every visitor."""
    reason = str(getattr(error, "orig", None) or type(error).__name__)
    current_app.logger.error("The database does not answer: %s", reason.partition("\n")[0])
    title, message = MESSAGES[503]
    return render_template("error.html", code=503, title=title, message=message), 503, {"Retry-After": "10"}
