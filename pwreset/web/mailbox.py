"""The local mailbox: pages that show the emails kept on this machine. They only read.

They exist in local mode without a mail server, for visitors on this machine. Everywhere else they answer 404.
"""

from flask import Blueprint, Response, abort, current_app, render_template, request
from markupsafe import Markup

from config import is_loopback
from pwreset.mail.mailbox import kept_email, kept_emails
from pwreset.web.security import content_security_policy

bp = Blueprint("mailbox", __name__, url_prefix="/mailbox")
# Links in the frame replace the page around it; `srcdoc` would apply the page's policy to the email's styles.
FRAME_HEAD = Markup('<!doctype html><base target="_top">')
FRAME_POLICY = content_security_policy(
    script_src="'none'", style_src="'unsafe-inline'", form_action="'none'", frame_src="'none'", frame_ancestors="'self'"
)


@bp.before_request
def only_on_this_machine() -> None:
    """Answer 404 outside local mode, and to visitors from other machines."""
    # Behind a proxy on this machine every visitor comes from loopback; the proxy's headers show that.
    forwarded = any(name == "Forwarded" or name.startswith("X-Forwarded-") for name, _ in request.headers)
    local = is_loopback(request.remote_addr or "") and not forwarded
    if not local or current_app.config["PUBLIC_URL"] or current_app.config["EMAIL_HOST"]:
        abort(404)


@bp.get("/")
def index() -> str:
    """List the kept emails, newest first."""
    return render_template("mailbox/index.html", title="Mailbox", messages=kept_emails())


@bp.get("/<id>")
def message(id: str) -> str:  # noqa: A002 (the name in the path)
    """Show one email."""
    email = kept_email(id) or abort(404)
    return render_template("mailbox/message.html", title=email.subject, message=email)


@bp.get("/<id>/html")
def html(id: str) -> Response:  # noqa: A002
    """Show the HTML part alone, for the sandboxed frame."""
    email = kept_email(id) or abort(404)
    response = Response(FRAME_HEAD + Markup(email.html))  # noqa: S704 (our own email, under FRAME_POLICY)
    response.headers["Content-Security-Policy"] = FRAME_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    return response
