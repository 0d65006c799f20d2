"""The extensions as instances, so that modules can import them without the application. `create_app` binds them."""

from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf.csrf import CSRFProtect

from pwreset.database import Base
from pwreset.mail.smtp import VerifyingMail
from pwreset.rate_limits import PerAppLimiter
from pwreset.request_info import current_network

db = SQLAlchemy(model_class=Base)
migrate = Migrate(render_as_batch=True)
login_manager = LoginManager()
csrf = CSRFProtect()
mail = VerifyingMail()
limiter = PerAppLimiter(key_func=current_network, strategy="moving-window")
