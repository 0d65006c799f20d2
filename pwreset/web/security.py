"""The checks of every request, and the headers of every response.

Decides which hosts are answered, which origins may post a form, what a body may contain, and the headers. It runs
before any view and must not use the database.
"""

import logging
import re
from urllib.parse import urlsplit

from flask import Flask, Response, abort, current_app, make_response, render_template, request
from werkzeug.exceptions import BadRequest
from werkzeug.middleware.proxy_fix import ProxyFix

from config import is_loopback
from pwreset.clock import at_most_every
from pwreset.request_info import host_name

MAXIMUM_BODY = 64 * 1024  # bytes
MAXIMUM_PARAMETERS = 50  # in a form or a query; the largest form here has five
WITH_PORT = re.compile(r"\A(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|([\d.]+):\d+)\Z")
CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "form-action": "'self'",
    "frame-src": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
HEADERS = {
    # With no-referrer, browsers send `Origin: null` with forms, and `check_origin` would reject them.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Anyone can send many wrong hosts and origins; one line a minute is enough to explain a wrong proxy configuration.
host_warning_is_due = at_most_every(60)
origin_warning_is_due = at_most_every(60)
logger = logging.getLogger(__name__)


class CrossOriginForm(BadRequest):
    """A form that was posted from the page of another origin."""


class Proxies(ProxyFix):
    """Takes the client's address and the scheme from the headers of trusted proxies.

    It splits at every comma. Werkzeug respects quotes, so a quote from a client would hide the values that a proxy
    adds. Some proxies add the client's port to its address; with the port, all clients would count as one unknown one.
    """

    def _get_real_value(self, trusted: int, value: str | None) -> str | None:
        words = [word.strip() for word in (value or "").split(",")]
        return WITH_PORT.sub(r"\1\2", words[-trusted]) if 0 < trusted <= len(words) else None


def init_app(app: Flask) -> None:
    """Bind the checks and headers to the application; before CSRFProtect, so that the host is checked first."""
    app.before_request(check_host)
    app.before_request(check_origin)
    app.before_request(check_form)
    app.after_request(set_headers)
    proxies = app.config["TRUSTED_PROXIES"]
    if proxies:
        app.wsgi_app = Proxies(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]


def content_security_policy(**changes: str) -> str:
    """Return the policy's text; `frame_ancestors="'self'"` changes one directive."""
    directives = CONTENT_SECURITY_POLICY | {name.replace("_", "-"): value for name, value in changes.items()}
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def check_host() -> Response | None:
    """Answer 400 to a Host that is not this site's, before anything is built from it.

    Public mode: the host of PUBLIC_URL, and loopback names for `/healthz` and `/metrics`. Local mode: loopback names
    only, since another site's name could point to this machine (DNS rebinding).
    """
    public = current_app.config["PUBLIC_URL"]
    if (public is None or request.path in {"/healthz", "/metrics"}) and is_loopback(host_name()):
        return None
    # Without the port: links never take it from a request, and a proxy may leave it out.
    if public is not None and host_name() == urlsplit(public).hostname:
        return None
    if host_warning_is_due():
        logger.warning(
            "Rejected a request for a host other than %s. A proxy must pass the Host header on.", public or "loopback"
        )
    # A template without `base.html`: `url_for` does not work for a host that is not trusted.
    own = f"http://127.0.0.1:{request.environ.get('SERVER_PORT', 5000)}"
    return make_response(render_template("bad_host.html", local_mode=public is None, local_url=own), 400)


def check_origin() -> None:
    """Reject a form that another site posted, if the browser sends the site's origin (RFC 6454).

    This adds to the CSRF token, and replaces Flask-WTF's Referer check, which proxies and privacy settings break.
    """
    sent = request.headers.get("Origin")
    if request.method == "POST" and sent is not None:
        own = current_app.config["PUBLIC_URL"] or f"{request.scheme}://{request.host}"
        if sent.lower() != own.lower():
            if origin_warning_is_due():
                logger.warning("Rejected a form from an origin other than %s (scheme, host and port must match).", own)
            raise CrossOriginForm


def check_form() -> None:
    """Reject what no form here sends: a truncated body, files, JSON, or a repeated field (parsers could differ).

    Flask-WTF would accept files and JSON as the form, and give a view an upload or a number instead of text. Parameters
    are counted before they are parsed; Werkzeug's MAX_FORM_PARTS counts multipart forms only.
    """
    if "Transfer-Encoding" in request.headers:
        abort(411)  # otherwise a body would be truncated at MAXIMUM_BODY, and its first part used
    is_form = request.mimetype == "application/x-www-form-urlencoded"
    body = request.get_data() if is_form else b""
    if is_form and len(body) != (request.content_length or 0):
        abort(400)  # the connection was lost: gunicorn passes on what arrived, and Werkzeug accepts it
    if max(body.count(b"&"), request.query_string.count(b"&")) >= MAXIMUM_PARAMETERS:
        abort(413)
    if any(len(values) > 1 for _, values in request.form.lists()):
        abort(400)
    if request.files or (request.method == "POST" and request.is_json):
        abort(400)


def set_headers(response: Response) -> Response:
    """Add the security headers; caches may store static files, but no page.

    A redirect within the site contains only a path: Werkzeug's own redirects, which add a trailing slash, would repeat
    the request's port and scheme.
    """
    location = urlsplit(response.headers.get("Location", ""))
    if location.netloc and location.netloc == request.host:
        path = "/" + location.path.lstrip("/\\")  # two slashes would name another host
        response.headers["Location"] = location._replace(scheme="", netloc="", path=path).geturl()
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", content_security_policy())
    if request.endpoint != "static" or response.status_code >= 400:  # an error page shows who is signed in
        response.headers.setdefault("Cache-Control", "no-store")
    if (current_app.config["PUBLIC_URL"] or "").startswith("https:"):
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response
