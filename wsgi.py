"""Where servers and the `flask` command find the application."""

import click

from config import ConfigError
from pwreset import create_app
from pwreset.startup import abort_startup, serve_in_public

try:
    app = create_app()
except ConfigError as error:
    if click.get_current_context(silent=True):
        raise  # the `flask` command prints it
    abort_startup(error.message)
serve_in_public(app)
