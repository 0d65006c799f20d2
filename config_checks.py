"""The checks of the settings: which values are allowed, and which of them contradict each other.

Each check takes the complete settings and yields a sentence for every problem: the setting's name and what to write
instead, never a secret. No check depends on another, so their order doesn't matter.
"""

import re
import zlib
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

Settings = Mapping[str, Any]
MINIMUM_KEY_BYTES = 32
ORIGIN = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(\d{0,5}))?/*", re.ASCII | re.IGNORECASE)
# The schemes that a URL may have, and the package that each needs.
PACKAGES = {
    "REDIS_URL": {"redis": "redis", "rediss": "redis"},
    "CELERY_BROKER_URL": {"redis": "celery", "rediss": "celery", "amqp": "celery", "amqps": "celery"},
}
# Words that typed keys contain, and the first characters of the keys in Flask and FastAPI tutorials.
EXAMPLE_WORDS = ("secret", "change", "default", "example", "passw", "insecure", "develop", "flask", "django", "your-")
EXAMPLES = (*EXAMPLE_WORDS, "192b9bdd22ab", "09d25e094faa", "5791628bb0b1")
NEW_KEY = 'make one with: .venv/bin/python -c "import secrets; print(secrets.token_urlsafe(48))"'
INSTALL = "install it with: .venv/bin/python -m pip install -r requirements-scale.txt"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address (without a port; brackets allowed) is a loopback one."""
    name = host.strip("[]").lower()
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def origin(url: str) -> str | None:
    """Return the origin of a URL as browsers send it, or None if links can't start with it.

    Plain http is allowed for loopback hosts only, because anyone on the network could read the links.
    """
    match = ORIGIN.fullmatch(url)
    if not match:
        return None
    scheme, host, port = (part.lower() for part in match.groups(""))
    default_port = 443 if scheme == "https" else 80
    port_number = int(port or default_port)
    if not _is_host(host) or not 0 < port_number < 65536 or (scheme == "http" and not is_loopback(host)):
        return None
    return f"{scheme}://{host}" + (f":{port_number}" if port_number != default_port else "")


def looks_like_an_example(key: str) -> bool:
    """Return whether a key looks typed or copied rather than generated, so that an attacker could guess it.

    About one in a hundred thousand keys from `secrets.token_urlsafe(48)` contains one of these words by chance.
    """
    plain = key.lower()
    repeats = len(zlib.compress(plain.encode(errors="replace"))) < len(plain) // 2 + 8
    steps = Tally(ord(after) - ord(before) for before, after in pairwise(plain))  # in "abcdef", all are 1
    return repeats or max(steps.values(), default=0) > len(plain) // 2 or any(word in plain for word in EXAMPLES)


def _is_host(name: str) -> bool:
    try:
        if ":" in name or name.startswith("["):
            return bool(ip_address(name.strip("[]").removeprefix("IPv6:")))  # RFC 5321, 4.1.3
        return bool(name.encode("idna")) and name.isprintable() and " " not in name
    except ValueError:  # an empty or too long label, or a character that no host name has
        return False


def _is_sender(text: str) -> bool:
    with suppress(ValueError, IndexError, HeaderParseError):
        return _is_host(Address(addr_spec=parseaddr(text)[1]).domain) and text.isprintable()
    return False


def _is_server_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        database = parts.path.strip("/") or "0"  # Redis numbers its databases; RabbitMQ has a virtual host here
        return bool(parts.hostname) and parts.port != 0 and (parts.scheme.startswith("amqp") or database.isdecimal())
    except ValueError:
        return False


def _check_site(settings: Settings) -> Iterator[str]:
    if settings["PUBLIC_URL"] and not origin(settings["PUBLIC_URL"]):
        yield (
            "PUBLIC_URL must be https:// and a host, without a path (an international name in its xn-- form); "
            "write one such as https://accounts.example.com"
        )
    name = settings["SITE_NAME"]
    if not name.isprintable() or len(name) > 100:
        yield "SITE_NAME goes into the subject of emails: write one line of at most 100 characters."
    token = settings["METRICS_TOKEN"] or ""
    if not (token.isascii() and token.isprintable()) or " " in token:
        yield "METRICS_TOKEN goes into a header: write ASCII characters without spaces."


def _check_keys(settings: Settings) -> Iterator[str]:
    key = settings["SECRET_KEY"]
    public = bool(settings["PUBLIC_URL"])
    if public and not key:
        yield f"SECRET_KEY is missing; {NEW_KEY}"
    given = {"SECRET_KEY": [key] if key else [], "SECRET_KEY_FALLBACKS": settings["SECRET_KEY_FALLBACKS"]}
    for name, keys in given.items():
        if any(_is_weak(key) or (public and looks_like_an_example(key)) for key in keys):
            yield f"{name} is too easy to guess: use {MINIMUM_KEY_BYTES} random bytes or more; {NEW_KEY}"


def _is_weak(key: str) -> bool:
    return len(key.encode(errors="replace")) < MINIMUM_KEY_BYTES or not key.isprintable() or len(set(key)) < 8


def _check_key_reuse(settings: Settings) -> Iterator[str]:
    if not settings["PUBLIC_URL"]:
        return
    keys = [key for key in (settings["SECRET_KEY"], *settings["SECRET_KEY_FALLBACKS"]) if key]
    if len(set(keys)) < len(keys):
        yield f"SECRET_KEY and SECRET_KEY_FALLBACKS contain the same key twice: replace one; {NEW_KEY}"
    for name, value in settings.items():
        texts = {str(value), unquote(str(value))}  # in a URL, a password is percent-encoded
        if not name.startswith("SECRET_KEY") and any(key in text for key in keys for text in texts):
            yield f"SECRET_KEY or one of its fallbacks is also in {name}, and it opens every account; {NEW_KEY}"
    with suppress(OSError):
        if (settings["INSTANCE_PATH"] / "secret_key").read_text(errors="replace").strip() == settings["SECRET_KEY"]:
            yield f"SECRET_KEY is the key of local mode, which is in a file in INSTANCE_PATH; {NEW_KEY}"


def _check_database(settings: Settings) -> Iterator[str]:
    try:
        driver = make_url(settings["DATABASE_URL"]).drivername
    except (ArgumentError, ValueError):  # ValueError: a port that is not a number
        yield "DATABASE_URL is not a database URL; write postgresql://user:password@host/name"
        return
    if driver not in {"sqlite", "postgresql+psycopg"}:
        yield f"DATABASE_URL names {driver}; SQLite and PostgreSQL are supported (MySQL matches josé@ to jose@)."
    elif driver != "sqlite" and not find_spec("psycopg"):
        yield f"DATABASE_URL needs the package psycopg; {INSTALL}"


def _check_servers(settings: Settings) -> Iterator[str]:
    for name, packages in PACKAGES.items():
        url = settings[name]
        scheme = (url or "").partition("://")[0]
        if url and (scheme not in packages or not _is_server_url(url)):
            yield f"{name} is not a URL of {' or '.join(packages)}; write one such as redis://host:port/0"
        elif url and not find_spec(packages[scheme]):
            yield f"{name} needs the package {packages[scheme]}; {INSTALL}"


def _check_email(settings: Settings) -> Iterator[str]:
    user = settings["EMAIL_USER"]
    password = settings["EMAIL_PASS"]
    host = settings["EMAIL_HOST"]
    if settings["PUBLIC_URL"] and not (host or password):
        yield "EMAIL_USER and EMAIL_PASS are missing (or EMAIL_HOST and EMAIL_FROM for a relay)."
    if bool(user) != bool(password):
        missing = "EMAIL_PASS" if user else "EMAIL_USER"
        yield f"{missing} is missing; for Gmail use an app password: https://myaccount.google.com/apppasswords"
    for name in ("EMAIL_USER", "EMAIL_PASS"):
        if not (settings[name] or "").isascii():
            yield f"{name} contains non-ASCII characters, which an SMTP login can't send."
    if host and not _is_host(host):
        yield "EMAIL_HOST is not a host name; write a name such as smtp.example.com."
    if settings["EMAIL_USE_TLS"] and settings["EMAIL_USE_SSL"]:
        yield "EMAIL_USE_TLS and EMAIL_USE_SSL can't both be on; use TLS for port 587, SSL for port 465."
    encrypted = settings["EMAIL_USE_TLS"] or settings["EMAIL_USE_SSL"]
    if host and password and not (encrypted or is_loopback(host)):
        yield "EMAIL_USE_TLS is off, so EMAIL_PASS would be sent unencrypted; turn it on."
    if host and not _is_sender(settings["EMAIL_FROM"] or ""):
        yield "EMAIL_FROM is missing or not an address (its default is EMAIL_USER); write accounts@example.com."


def _check_times(settings: Settings) -> Iterator[str]:
    if settings["EMAIL_DEADLINE"] >= settings["OUTBOX_LEASE_SECONDS"]:
        yield "EMAIL_DEADLINE must be below OUTBOX_LEASE_SECONDS, or a second worker sends the same email."
    if settings["EMAIL_DEADLINE"] >= settings["EMAIL_INTERVAL"]:
        yield "EMAIL_DEADLINE must be below EMAIL_INTERVAL, or a cooldown ends while its email is being sent."
    if settings["EMAIL_TIMEOUT"] > settings["EMAIL_DEADLINE"]:
        yield "EMAIL_TIMEOUT must not exceed EMAIL_DEADLINE; lower it, or raise EMAIL_DEADLINE."
    if settings["LOGIN_FIRST_WAIT"] > settings["LOGIN_LONGEST_WAIT"]:
        yield "LOGIN_FIRST_WAIT must not exceed LOGIN_LONGEST_WAIT; lower it, or raise LOGIN_LONGEST_WAIT."


CHECKS = (_check_site, _check_keys, _check_key_reuse, _check_database, _check_servers, _check_email, _check_times)
