"""The password reset: four views under Django's names and paths.

This page reads as Django's `django/contrib/auth/urls.py`: change an option here, for example
`PasswordResetView.as_view("reset", from_email="help@example.com")`.
"""

from flask import Blueprint

from pwreset.extensions import limiter
from pwreset.password_reset.views import (
    PasswordResetCompleteView,
    PasswordResetConfirmView,
    PasswordResetDoneView,
    PasswordResetView,
)

bp = Blueprint("password_reset", __name__)

reset = limiter.limit("20 per minute", methods=["POST"])(PasswordResetView.as_view("reset"))
confirm = limiter.limit("30 per minute", methods=["POST"])(PasswordResetConfirmView.as_view("confirm"))

bp.add_url_rule("/password-reset/", view_func=reset)
bp.add_url_rule("/password-reset/done/", view_func=PasswordResetDoneView.as_view("done"))
bp.add_url_rule("/password-reset-confirm/<uidb64>/<token>", view_func=confirm, strict_slashes=False)
bp.add_url_rule("/password-reset-complete/", view_func=PasswordResetCompleteView.as_view("complete"))
