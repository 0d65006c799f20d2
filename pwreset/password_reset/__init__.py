"""The password reset: four views under Django's names and paths, and two that revoke.

Options are set here, as in Django's `django/contrib/auth/urls.py`, for example
`PasswordResetView.as_view("reset", from_email="help@example.com")`.
"""

from flask import Blueprint

from pwreset.extensions import limiter
from pwreset.password_reset import revoke, views
from pwreset.rate_limits import per_minute

bp = Blueprint("password_reset", __name__)

limit_resets = limiter.limit(per_minute("RATELIMIT_RESET"), methods=["POST"])
limit_links = limiter.limit(per_minute("RATELIMIT_CONFIRM"), methods=["POST"])

confirm = limit_links(views.PasswordResetConfirmView.as_view("confirm"))
cancel = limit_links(revoke.PasswordResetCancelView.as_view("cancel"))
secure = limit_links(revoke.AccountSecureView.as_view("secure"))

bp.add_url_rule("/password-reset/", view_func=limit_resets(views.PasswordResetView.as_view("reset")))
bp.add_url_rule("/password-reset/done/", view_func=views.PasswordResetDoneView.as_view("done"))
bp.add_url_rule("/password-reset-confirm/<uidb64>/<token>", view_func=confirm, strict_slashes=False)
bp.add_url_rule("/password-reset-complete/", view_func=views.PasswordResetCompleteView.as_view("complete"))
bp.add_url_rule("/password-reset-cancel/<uidb64>/<token>", view_func=cancel, strict_slashes=False)
bp.add_url_rule("/account-secure/<uidb64>/<token>", view_func=secure, strict_slashes=False)
