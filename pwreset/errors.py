"""What a person sees when something is wrong: one page, with the right status and a way on.

Decides the words. A page here must not touch the database, which may be what is wrong.
"""

from flask import Flask, render_template, request
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

WORDS = {
    400: ("Bad request", "The request could not be understood. Go back and try again."),
    403: ("Forbidden", "You may not see this page."),
    404: ("Page not found", "There is nothing at this address. If you followed a link, check that it is whole."),
    405: ("Method not allowed", "This page can't be used in this way."),
    413: ("Too much at once", "What was sent is larger than this site takes."),
    429: ("Too many tries", "Wait a minute, then try again."),
    500: ("Something went wrong", "The mistake is ours and has been noted. Try again in a moment."),
    503: ("Not available right now", "Nothing is lost. Try again in a moment."),
}
FORM_TOO_OLD = "The form was open for too long, or your browser keeps no cookies. Open it again and send it once more."


def init_app(app: Flask) -> None:
    """Bind the pages to the application."""
    app.register_error_handler(HTTPException, show)
    app.register_error_handler(OperationalError, show_unavailable)


def show(error: HTTPException) -> tuple[str, int, dict[str, str]]:
    """Render the page of an HTTP error."""
    code = error.code or 500
    title, message = WORDS.get(code, (error.name, "Go back and try again."))
    if isinstance(error, CSRFError):
        message = FORM_TOO_OLD
    headers = {"Retry-After": "60"} if isinstance(error, RateLimitExceeded) else {}
    if code == 405:  # noqa: PLR2004 (the status is the name)
        headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
    retry = request.path if isinstance(error, CSRFError) and _has_page(request.url_rule) else None
    return render_template("error.html", code=code, title=title, message=message, retry_url=retry), code, headers


def _has_page(rule: Rule | None) -> bool:
    return rule is not None and "GET" in (rule.methods or ())


def show_unavailable(_error: OperationalError) -> tuple[str, int, dict[str, str]]:
    """Render the page for a database that does not answer, the same for everybody."""
    title, message = WORDS[503]
    return render_template("error.html", code=503, title=title, message=message), 503, {"Retry-After": "10"}
