"""The extensions as instances, so that modules can import them without the application. `create_app` binds them."""

from flask_limiter import Limiter
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf.csrf import CSRFProtect

from pwreset.database import Base
from pwreset.mail.smtp import VerifyingMail
from pwreset.request_info import current_network

db = SQLAlchemy(model_class=Base)
migrate = Migrate(render_as_batch=True)
login_manager = LoginManager()
csrf = CSRFProtect()
mail = VerifyingMail()
# With this strategy of `limits`, windows end even if a clock was changed, and the counts of clients that stay away are
# removed from memory. Without `swallow_errors`, all requests that wait for Redis when it stops get an error page,
# except the first one. With it they are not counted, and neither are those in a rare race in which `limits` starts its
# timer twice.
limiter = Limiter(key_func=current_network, strategy="sliding-window-counter", swallow_errors=True)
