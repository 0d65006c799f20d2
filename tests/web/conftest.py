"""An application in public mode."""

import pytest
from flask import Flask

from tests.support.app import MakeApp
from tests.support.public_mode import IN_PUBLIC


@pytest.fixture
def public(make_app: MakeApp) -> Flask:
    """Return an application in public mode."""
    return make_app(**IN_PUBLIC)
