"""Settings that tests share, and the problems that settings are refused for."""

import pytest

import config

KEY = "k3Yl-9aQzX7wPvT2bNcR5dMfG8hJsL4u6E0iOoUy"
OLD_KEY = "z8Xw-1bVqY6tRmK3nCfP9jHgD5sAlE7uI2oW4yTe"
PUBLIC = {"PUBLIC_URL": "https://accounts.example.com", "SECRET_KEY": KEY}
GMAIL = {"EMAIL_USER": "team@gmail.example", "EMAIL_PASS": "abcd efgh ijkl mnop"}
RELAY = {"EMAIL_HOST": "localhost", "EMAIL_FROM": "accounts@example.com"}


def problems_of(environ: dict[str, str]) -> list[str]:
    """Return what the settings are refused for."""
    with pytest.raises(config.ConfigError) as caught:
        config.read(environ)
    return caught.value.problems


def problem_of(environ: dict[str, str]) -> str:
    """Return the one thing the settings are refused for."""
    problems = problems_of(environ)
    assert len(problems) == 1, problems
    return problems[0]
