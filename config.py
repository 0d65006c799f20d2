"""Every setting, read once from the environment: typed, checked, and listed here in one place.

Decides what a setting may be and what stands in for it when it is unset. It must not import the application, open a
connection or print. All problems are collected and raised together, so that a first start is mended in one go; a
message names the setting and the remedy and never repeats a secret.
"""

import os
import secrets
import tempfile
import zlib
from collections import Counter as Tally
from collections.abc import Mapping
from contextlib import suppress
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import click
from dotenv import dotenv_values
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent
LOCAL_URL = "http://127.0.0.1:5000"
MINIMUM_KEY_BYTES = 32
DRIVERS = {
    "sqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
# In keys that were not made but written, and whole keys that tutorials show and sites have copied.
DEFAULT_WORDS = ("secret", "change", "default", "example", "passw", "insecure", "develop", "flask", "django", "your-")
PUBLISHED_KEYS = frozenset(
    {
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "5791628bb0b13ce0c676dfde280ba245",
    }
)
NEW_KEY = 'make one with: .venv/bin/python -c "import secrets; print(secrets.token_urlsafe(48))"'
INSTALL = "install it with: .venv/bin/python -m pip install -r requirements-scale.txt"
YES, NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class Setting(NamedTuple):
    """One row of the table below: the default in its text form (None: none) and, for numbers, the range allowed."""

    kind: type
    default: str | None
    low: float = 0
    high: float = 0


# The README's table holds the meaning of each; a test holds the two together.
SETTINGS = {
    "PUBLIC_URL": Setting(str, None),
    "SITE_NAME": Setting(str, None),
    "SECRET_KEY": Setting(str, None),
    "SECRET_KEY_FALLBACKS": Setting(list, ""),
    "DATABASE_URL": Setting(str, None),
    "INSTANCE_PATH": Setting(str, str(ROOT / "instance")),
    "EMAIL_USER": Setting(str, None),
    "EMAIL_PASS": Setting(str, None),
    "EMAIL_HOST": Setting(str, "smtp.gmail.com"),
    "EMAIL_PORT": Setting(int, None, 1, 65535),
    "EMAIL_USE_TLS": Setting(bool, None),
    "EMAIL_USE_SSL": Setting(bool, "false"),
    "EMAIL_FROM": Setting(str, None),
    "EMAIL_TIMEOUT": Setting(float, "10", 0.1, 300),
    "EMAIL_DEADLINE": Setting(float, "30", 0.1, 59),
    "EMAIL_INTERVAL": Setting(int, "60", 1, 3600),
    "EMAIL_HOURLY": Setting(int, "5", 1, 1000),
    "PASSWORD_RESET_TIMEOUT": Setting(int, "3600", 1, 604800),
    "INVITE_TIMEOUT": Setting(int, "259200", 1, 604800),
    "PASSWORD_MIN_LENGTH": Setting(int, "15", 8, 128),
    "REGISTRATION_OPEN": Setting(bool, "true"),
    "SESSION_LIFETIME_DAYS": Setting(int, "14", 1, 400),
    "SESSION_MAXIMUM_DAYS": Setting(int, None, 1, 400),
    "OUTBOX_POLL_SECONDS": Setting(float, "1", 0.05, 60),
    "OUTBOX_LEASE_SECONDS": Setting(float, "60", 1, 3600),
    "OUTBOX_WORKER": Setting(str, "thread"),
    "RATELIMIT_ENABLED": Setting(bool, "true"),
    "RATELIMIT_RESET": Setting(int, "20", 1, 100000),
    "RATELIMIT_REGISTER": Setting(int, "20", 1, 100000),
    "RATELIMIT_LOGIN": Setting(int, "30", 1, 100000),
    "RATELIMIT_CONFIRM": Setting(int, "30", 1, 100000),
    "LOGIN_FREE_FAILURES": Setting(int, "5", 1, 100),
    "LOGIN_FIRST_WAIT": Setting(int, "15", 1, 900),
    "LOGIN_LONGEST_WAIT": Setting(int, "900", 1, 900),
    "REDIS_URL": Setting(str, None),
    "CELERY_BROKER_URL": Setting(str, None),
    "TRUSTED_PROXIES": Setting(int, "0", 0, 10),
    "METRICS_TOKEN": Setting(str, None),
    "LOG_FORMAT": Setting(str, "text"),
}
# What a setting's URL may begin with, and the package that speaks it.
STORES = {
    "REDIS_URL": {"redis": "redis", "rediss": "redis"},
    "CELERY_BROKER_URL": {"redis": "celery", "rediss": "celery", "amqp": "celery", "amqps": "celery"},
}


class ConfigError(click.ClickException):
    """What is wrong with the settings, one line each; the `flask` command prints it without a traceback.

    Args:
        problems: sentences that begin with the setting's name.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("pwreset cannot start:\n" + "\n".join(f"  - {problem}" for problem in problems))


def load(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read the settings for this process: the environment first, then `.env` in the project's root.

    Flask's own FLASK_SKIP_DOTENV=1 leaves the file out, as the tests do.

    Raises:
        ConfigError: naming everything that is missing or wrong.
    """
    skip = environ.get("FLASK_SKIP_DOTENV", "").lower() in YES
    kept = {} if skip else {name: text for name, text in dotenv_values(ROOT / ".env").items() if text}
    return read({**kept, **environ})


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Turn text settings into typed and checked ones.

    Args:
        environ: names as in the README; an empty value counts as unset.

    Returns:
        Every name in `SETTINGS` with its value (seconds, bytes and counts as numbers), None where unset.

    Raises:
        ConfigError: naming everything that is missing or wrong.
    """
    given = {name: environ[name].strip() for name in SETTINGS if environ.get(name, "").strip()}
    problems: list[str] = []
    settings = {name: _parsed(name, given.get(name), problems) for name in SETTINGS}
    for check in (
        _check_public_url,
        _check_keys,
        _check_database,
        _check_stores,
        _check_mail,
        _check_outbox,
        _check_waits,
        _check_sessions,
        _check_logs,
        _check_key_has_one_use,
    ):
        check(settings, given, problems)
    if problems:
        raise ConfigError(problems)
    return settings


def local_secret_key(folder: Path) -> str:
    """The local mode's secret key, made on first use and readable by its owner only.

    Args:
        folder: the instance folder; created if missing.

    Raises:
        ConfigError: if the file holds no key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secret_key"
    if not path.exists():
        _make_key(path)
    key = path.read_text(encoding="ascii", errors="replace").strip()
    if len(key) < MINIMUM_KEY_BYTES:
        raise ConfigError([f"SECRET_KEY can't be read from {path}; delete the file, and a new one is made."])
    return key


def _make_key(path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(48))
    try:
        # A link fails where the file exists: of two first starts one wins, and nobody reads half a key.
        os.link(name, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        Path(name).replace(path)
    Path(name).unlink(missing_ok=True)


def is_loopback(host: str) -> bool:
    """Whether a host name or address (no port; brackets allowed) is this machine's own."""
    name = host.strip("[]").lower()
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _parsed(name: str, text: str | None, problems: list[str]) -> Any:
    setting = SETTINGS[name]
    text = setting.default if text is None else text
    if text is None or setting.kind is str:
        return text
    if setting.kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    return _boolean(name, text, problems) if setting.kind is bool else _number(name, text, problems)


def _boolean(name: str, text: str, problems: list[str]) -> bool | None:
    if text.lower() in YES | NO:
        return text.lower() in YES
    problems.append(f"{name} is {text!r}: write true or false.")
    return None


def _number(name: str, text: str, problems: list[str]) -> float:
    setting = SETTINGS[name]
    with suppress(ValueError):
        number: float = setting.kind(text)
        if setting.low <= number <= setting.high:
            return number
    whole = "a whole number" if setting.kind is int else "a number"
    problems.append(f"{name} is {text!r}: write {whole} from {setting.low:g} to {setting.high:g}.")
    return setting.kind(setting.default or setting.low)  # type: ignore[no-any-return]


def _check_public_url(settings: dict[str, Any], given: dict[str, str], problems: list[str]) -> None:
    host: str | None = None
    if "PUBLIC_URL" in given:
        problem = _public_url_problem(given["PUBLIC_URL"])
        if problem:
            problems.append(f"PUBLIC_URL {problem}; write an origin such as https://accounts.example.com")
        else:
            url = urlsplit(given["PUBLIC_URL"])
            settings["PUBLIC_URL"], host = _origin(url), url.hostname
    name = settings["SITE_NAME"] = settings["SITE_NAME"] or host or "localhost"
    if not name.isprintable() or len(name) > 100:
        problems.append("SITE_NAME goes into the subject of mails: write one line of at most 100 characters.")


def _public_url_problem(text: str) -> str | None:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "is not a URL"
    if url.scheme not in {"http", "https"} or not url.hostname or port == 0:
        return "is not an https:// origin"
    if url.path.strip("/") or url.query or url.fragment or "@" in url.netloc or "?" in text or "#" in text:
        return "holds more than an origin"
    # Of the text too: `urlsplit` drops tabs and line ends without a word.
    plain = text.isascii() and text.isprintable() and all(mark.isalnum() or mark in ".-:[]" for mark in url.netloc)
    if not plain or not _is_host(url.hostname):
        return "names no possible host (write an international name in its xn-- form)"
    if url.scheme == "http" and not is_loopback(url.hostname):
        return "is plain http, over which anybody on the way reads the links"
    return None


def _origin(url: SplitResult) -> str:
    default_port = {"http": 80, "https": 443}[url.scheme]
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return f"{url.scheme}://{host}" + (f":{url.port}" if url.port not in {None, default_port} else "")


def _check_keys(settings: dict[str, Any], _given: dict[str, str], problems: list[str]) -> None:
    key, fallbacks = settings["SECRET_KEY"], settings["SECRET_KEY_FALLBACKS"]
    if key is None and settings["PUBLIC_URL"]:
        problems.append(f"SECRET_KEY is missing; {NEW_KEY}")
    for name, keys in (("SECRET_KEY", [key] if key else []), ("SECRET_KEY_FALLBACKS", fallbacks)):
        if any(_is_weak(one) or (settings["PUBLIC_URL"] and _looks_like_an_example(one)) for one in keys):
            problems.append(f"{name} is too easy to guess: use {MINIMUM_KEY_BYTES} random bytes or more; {NEW_KEY}")


def _check_key_has_one_use(settings: dict[str, Any], _given: dict[str, str], problems: list[str]) -> None:
    if settings["PUBLIC_URL"] is None:
        return
    key, fallbacks = settings["SECRET_KEY"], settings["SECRET_KEY_FALLBACKS"]
    everywhere = [key, *fallbacks] if key else fallbacks
    if len(set(everywhere)) < len(everywhere):
        problems.append(f"SECRET_KEY and SECRET_KEY_FALLBACKS name a key twice: a new key is a new one; {NEW_KEY}")
    if {settings["METRICS_TOKEN"], *_passwords_in(settings)} & set(everywhere):
        problems.append(f"SECRET_KEY is used for something else too, and whoever has that has all accounts; {NEW_KEY}")
    if key and key == _kept_local_key(settings["INSTANCE_PATH"]):
        problems.append(f"SECRET_KEY is the one that local mode made here, which is in a file; {NEW_KEY}")


def _is_weak(key: str) -> bool:
    return len(key.encode(errors="replace")) < MINIMUM_KEY_BYTES or not key.isprintable() or len(set(key)) < 8


def _looks_like_an_example(key: str) -> bool:
    """Whether a key was written and not made: whoever guesses it makes links to accounts.

    Of keys made by `secrets.token_urlsafe(48)` one in some hundred thousand holds one of these words by chance.
    """
    plain = key.lower()
    # In runs such as abcdef most characters are one step from the last; what repeats itself can be packed.
    steps = Tally(ord(after) - ord(before) for before, after in pairwise(plain))
    packed = zlib.compress(plain.encode(errors="replace"))
    return (
        any(word in plain for word in DEFAULT_WORDS)
        or plain in PUBLISHED_KEYS
        or max(steps.values()) > len(plain) // 2
        or len(packed) < len(plain) // 2 + 8
    )


def _passwords_in(settings: dict[str, Any]) -> set[str | None]:
    found: set[str | None] = {settings["EMAIL_PASS"]}
    for name in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"):
        with suppress(ValueError):  # what is no URL is told elsewhere
            found.add(unquote(urlsplit(settings[name] or "").password or ""))
    return found


def _kept_local_key(folder: Path) -> str | None:
    with suppress(OSError):
        return (folder / "secret_key").read_text(encoding="ascii", errors="replace").strip()
    return None


def _check_database(settings: dict[str, Any], given: dict[str, str], problems: list[str]) -> None:
    with suppress(RuntimeError):  # a home folder of nobody's: the name stays as it is
        settings["INSTANCE_PATH"] = Path(settings["INSTANCE_PATH"]).expanduser()
    settings["INSTANCE_PATH"] = folder = Path(settings["INSTANCE_PATH"]).absolute()
    if "DATABASE_URL" not in given:
        url = URL.create("sqlite", database=str(folder / "pwreset.db"))  # its own quoting, whatever the folder's name
        settings["DATABASE_URL"] = url.render_as_string()
        return
    try:
        url = make_url(given["DATABASE_URL"])
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        problems.append("DATABASE_URL is not a database URL; write postgresql://user:password@host/name")
        return
    if url.drivername not in DRIVERS:
        problems.append(
            f"DATABASE_URL names {url.drivername}; SQLite and PostgreSQL are supported "
            "(MySQL's usual collation takes josé@ and jose@ for one address)."
        )
    elif url.drivername != "sqlite" and not find_spec("psycopg"):
        problems.append(f"DATABASE_URL needs the PostgreSQL driver; {INSTALL}")
    else:
        url = url.set(drivername=DRIVERS[url.drivername])
        settings["DATABASE_URL"] = url.render_as_string(hide_password=False)


def _check_stores(settings: dict[str, Any], _given: dict[str, str], problems: list[str]) -> None:
    for name, packages in STORES.items():
        if settings[name] is None:
            continue
        scheme, *known = settings[name].partition("://")[0], *packages
        if scheme not in packages or not _names_a_store(settings[name]):
            problems.append(
                f"{name} is not a URL of {' or '.join(known)}; write {known[0]}://host:port and what follows."
            )
        elif not find_spec(packages[scheme]):
            problems.append(f"{name} needs the package {packages[scheme]}; {INSTALL}")


def _names_a_store(url: str) -> bool:
    try:
        parts = urlsplit(url)
        numbered = parts.path.strip("/") or "0"  # of Redis's databases; what RabbitMQ calls a virtual host is a name
        return bool(parts.hostname) and parts.port != 0 and (parts.scheme.startswith("amqp") or numbered.isdecimal())
    except ValueError:
        return False


def _check_mail(settings: dict[str, Any], given: dict[str, str], problems: list[str]) -> None:
    settings["EMAIL_PASS"] = "".join((settings["EMAIL_PASS"] or "").split()) or None
    if not given.keys() & {"EMAIL_USER", "EMAIL_HOST"}:
        settings["EMAIL_HOST"] = None
        if settings["EMAIL_PASS"]:
            problems.append("EMAIL_USER is missing: EMAIL_PASS is the password of that account.")
        elif settings["PUBLIC_URL"]:
            problems.append("EMAIL_USER and EMAIL_PASS are missing (or EMAIL_HOST and EMAIL_FROM for a relay).")
        return
    _choose_encryption(settings, given, problems)
    _choose_sender(settings, given, problems)
    unspeakable = [name for name in ("EMAIL_USER", "EMAIL_PASS") if not (settings[name] or "").isascii()]
    problems += [f"{name} holds characters beyond ASCII, which a login can't carry." for name in unspeakable]
    if (settings["EMAIL_USER"] is None) != (settings["EMAIL_PASS"] is None):
        missing = "EMAIL_PASS" if settings["EMAIL_PASS"] is None else "EMAIL_USER"
        problems.append(
            f"{missing} is missing; for Gmail use an app password: https://myaccount.google.com/apppasswords"
        )


def _choose_encryption(settings: dict[str, Any], given: dict[str, str], problems: list[str]) -> None:
    loopback, ssl = is_loopback(settings["EMAIL_HOST"]), settings["EMAIL_USE_SSL"]
    if not _is_host(settings["EMAIL_HOST"].strip("[]")):
        problems.append("EMAIL_HOST is not a host name; write a name such as smtp.example.com.")
    if ssl and settings["EMAIL_USE_TLS"]:
        problems.append("EMAIL_USE_TLS and EMAIL_USE_SSL exclude each other; port 587 wants TLS, port 465 SSL.")
    if settings["EMAIL_USE_TLS"] is None:
        settings["EMAIL_USE_TLS"] = not (loopback or ssl)
    if "EMAIL_PORT" not in given:
        settings["EMAIL_PORT"] = 465 if ssl else 25 if loopback else 587
    if settings["EMAIL_PASS"] and not (loopback or ssl or settings["EMAIL_USE_TLS"]):
        problems.append("EMAIL_USE_TLS is off, so EMAIL_PASS would cross the network in clear; turn it on.")


def _choose_sender(settings: dict[str, Any], given: dict[str, str], problems: list[str]) -> None:
    sender = settings["EMAIL_FROM"] or settings["EMAIL_USER"] or ""
    settings["EMAIL_FROM"] = sender
    with suppress(ValueError, IndexError, HeaderParseError):
        address = Address(addr_spec=parseaddr(sender)[1])
        if _is_host(address.domain) and sender.isprintable():
            return
    if settings["EMAIL_USER"] and "EMAIL_FROM" not in given:
        problems.append("EMAIL_USER is not an address, so set EMAIL_FROM too, such as accounts@example.com.")
    else:
        problems.append("EMAIL_FROM is missing or not an address; write accounts@example.com or Name <address>.")


def _is_host(name: str) -> bool:
    try:
        return bool(name.encode("idna")) and name.isprintable() and " " not in name
    except UnicodeError:  # an empty or too long label, or a character that no host name has
        return False


def _check_outbox(settings: dict[str, Any], _given: dict[str, str], problems: list[str]) -> None:
    if settings["OUTBOX_WORKER"] not in {"thread", "none"}:
        problems.append(f"OUTBOX_WORKER is {settings['OUTBOX_WORKER']!r}: write thread or none.")
    if settings["EMAIL_DEADLINE"] >= settings["OUTBOX_LEASE_SECONDS"]:
        problems.append("EMAIL_DEADLINE must be below OUTBOX_LEASE_SECONDS, or a second worker sends the same mail.")
    if settings["EMAIL_DEADLINE"] >= settings["EMAIL_INTERVAL"]:
        problems.append("EMAIL_DEADLINE must be below EMAIL_INTERVAL, or an account's turn ends in mid-mail.")
    if settings["EMAIL_TIMEOUT"] > settings["EMAIL_DEADLINE"]:
        problems.append("EMAIL_TIMEOUT must not exceed EMAIL_DEADLINE; lower it, or raise EMAIL_DEADLINE.")


def _check_waits(settings: dict[str, Any], _given: dict[str, str], problems: list[str]) -> None:
    if settings["LOGIN_FIRST_WAIT"] > settings["LOGIN_LONGEST_WAIT"]:
        problems.append("LOGIN_FIRST_WAIT must not exceed LOGIN_LONGEST_WAIT; lower it, or raise LOGIN_LONGEST_WAIT.")


def _check_sessions(settings: dict[str, Any], _given: dict[str, str], _problems: list[str]) -> None:
    if settings["SESSION_MAXIMUM_DAYS"] is None:  # NIST SP 800-63B-4, 2.1.3, unless a team asks for longer ones
        settings["SESSION_MAXIMUM_DAYS"] = max(30, settings["SESSION_LIFETIME_DAYS"])


def _check_logs(settings: dict[str, Any], _given: dict[str, str], problems: list[str]) -> None:
    if settings["LOG_FORMAT"] not in {"text", "json"}:
        problems.append(f"LOG_FORMAT is {settings['LOG_FORMAT']!r}: write text or json.")
    token = settings["METRICS_TOKEN"] or ""
    if not (token.isascii() and token.isprintable()) or " " in token:
        problems.append("METRICS_TOKEN goes into a header: write ASCII characters without spaces.")
