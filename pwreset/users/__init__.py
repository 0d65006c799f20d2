"""The pages of an account: register, log in and out, the account page, and changing the password."""

from flask import Blueprint

from pwreset.extensions import limiter
from pwreset.rate_limits import per_minute
from pwreset.users import views

bp = Blueprint("users", __name__)

register = limiter.limit(per_minute("RATELIMIT_REGISTER"), methods=["POST"])(views.register)
password_change = limiter.limit(per_minute("RATELIMIT_CONFIRM"), methods=["POST"])(views.password_change)
login = limiter.limit(per_minute("RATELIMIT_LOGIN"), methods=["POST"])(views.login)

bp.add_url_rule("/", view_func=views.home)
bp.add_url_rule("/register/", view_func=register, methods=["GET", "POST"])
bp.add_url_rule("/register/done/", view_func=views.register_done)
bp.add_url_rule("/login/", view_func=login, methods=["GET", "POST"])
bp.add_url_rule("/logout/", view_func=views.logout, methods=["GET", "POST"])
bp.add_url_rule("/account/", view_func=views.account)
bp.add_url_rule("/account/sign-out-everywhere/", view_func=views.sign_out_everywhere, methods=["POST"])
bp.add_url_rule("/password-change/", view_func=password_change, methods=["GET", "POST"])
bp.add_url_rule("/password-change/done/", view_func=views.password_change_done)
bp.add_url_rule("/.well-known/change-password", view_func=views.well_known_change_password)
