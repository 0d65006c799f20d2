"""The mailbox: pages that show the mail kept on this machine.

Decides who sees them: nobody but this machine, in local mode, where no mail server is set. Everywhere else there is
no such page. They only read.
"""

from flask import Blueprint, Response, abort, current_app, render_template, request
from markupsafe import Markup

from config import is_loopback
from pwreset.mail.mailbox import KeptMail, kept_mail, kept_mails
from pwreset.web.security import content_security_policy

bp = Blueprint("mailbox", __name__, url_prefix="/mailbox")
# Links in the frame replace the whole page; srcdoc would lose the mail's styles to the page's policy.
FRAME_HEAD = Markup('<!doctype html><base target="_top">')
FRAME_POLICY = content_security_policy(
    script_src="'none'", style_src="'unsafe-inline'", form_action="'none'", frame_src="'none'", frame_ancestors="'self'"
)


@bp.before_request
def only_on_this_machine() -> None:
    """Hide the pages where they must not be."""
    # Behind a proxy on this machine everybody comes from loopback; the proxy's headers tell.
    forwarded = any(name == "Forwarded" or name.startswith("X-Forwarded-") for name, _ in request.headers)
    here = is_loopback(request.remote_addr or "") and not forwarded
    if not here or current_app.config["PUBLIC_URL"] or current_app.config["EMAIL_HOST"]:
        abort(404)


@bp.get("/")
def index() -> str:
    """List the kept mails, newest first."""
    return render_template("mailbox/index.html", title="Mailbox", messages=kept_mails())


@bp.get("/<id>")
def message(id: str) -> str:  # noqa: A002 (the name in the path)
    """Show one mail."""
    mail = _mail_or_404(id)
    return render_template("mailbox/message.html", title=mail.subject, message=mail)


@bp.get("/<id>/html")
def html(id: str) -> Response:  # noqa: A002
    """Show the HTML part alone, for the sandboxed frame."""
    response = Response(FRAME_HEAD + Markup(_mail_or_404(id).html))  # noqa: S704 (our own mail, under a policy of its own)
    response.headers["Content-Security-Policy"] = FRAME_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    return response


def _mail_or_404(identity: str) -> KeptMail:
    return kept_mail(identity) or abort(404)
