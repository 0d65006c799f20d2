"""Settings: what each may be, what stands in for it, and what a first start is told."""

import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import config
from config import ConfigError
from pwreset import create_app
from pwreset.extensions import db, mail
from tests.support.app import Inbox, MakeApp, Visitor, add_user

KEY = "k3Yl-9aQzX7wPvT2bNcR5dMfG8hJsL4u6E0iOoUy"
OLD_KEY = "z8Xw-1bVqY6tRmK3nCfP9jHgD5sAlE7uI2oW4yTe"
PUBLIC = {"PUBLIC_URL": "https://accounts.example.com", "SECRET_KEY": KEY}
GMAIL = {"EMAIL_USER": "team@gmail.example", "EMAIL_PASS": "abcd efgh ijkl mnop"}
RELAY = {"EMAIL_HOST": "localhost", "EMAIL_FROM": "accounts@example.com"}

DEFAULTS = {
    "PUBLIC_URL": None,
    "SITE_NAME": "localhost",
    "SECRET_KEY": None,
    "SECRET_KEY_FALLBACKS": [],
    "DATABASE_URL": f"sqlite:///{config.ROOT / 'instance' / 'pwreset.db'}",
    "INSTANCE_PATH": config.ROOT / "instance",
    "EMAIL_USER": None,
    "EMAIL_PASS": None,
    "EMAIL_HOST": None,
    "EMAIL_PORT": None,
    "EMAIL_USE_TLS": None,
    "EMAIL_USE_SSL": False,
    "EMAIL_FROM": None,
    "EMAIL_TIMEOUT": 10.0,
    "EMAIL_DEADLINE": 30.0,
    "EMAIL_INTERVAL": 60,
    "EMAIL_HOURLY": 5,
    "PASSWORD_RESET_TIMEOUT": 3600,
    "INVITE_TIMEOUT": 259200,
    "PASSWORD_MIN_LENGTH": 15,
    "REGISTRATION_OPEN": True,
    "SESSION_LIFETIME_DAYS": 14,
    "SESSION_MAXIMUM_DAYS": 30,
    "OUTBOX_POLL_SECONDS": 1.0,
    "OUTBOX_LEASE_SECONDS": 60.0,
    "OUTBOX_WORKER": "thread",
    "RATELIMIT_ENABLED": True,
    "RATELIMIT_RESET": 20,
    "RATELIMIT_REGISTER": 20,
    "RATELIMIT_LOGIN": 30,
    "RATELIMIT_CONFIRM": 30,
    "LOGIN_FREE_FAILURES": 5,
    "LOGIN_FIRST_WAIT": 15,
    "LOGIN_LONGEST_WAIT": 900,
    "REDIS_URL": None,
    "CELERY_BROKER_URL": None,
    "TRUSTED_PROXIES": 0,
    "METRICS_TOKEN": None,
    "LOG_FORMAT": "text",
}
BOOLEANS = [name for name, setting in config.SETTINGS.items() if setting.kind is bool]
NUMBERS = [name for name, setting in config.SETTINGS.items() if setting.kind in {int, float}]
WHOLE = [name for name, setting in config.SETTINGS.items() if setting.kind is int]


def problems_of(environ: dict[str, str]) -> list[str]:
    """Return what the settings are refused for."""
    with pytest.raises(ConfigError) as caught:
        config.read(environ)
    return caught.value.problems


def problem_of(environ: dict[str, str]) -> str:
    """Return the one thing the settings are refused for."""
    problems = problems_of(environ)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("name", config.SETTINGS)
def test_an_unset_setting_has_its_default(name: str) -> None:
    value = config.read({})[name]
    assert (value, type(value)) == (DEFAULTS[name], type(DEFAULTS[name]))


@pytest.mark.parametrize("name", config.SETTINGS)
@pytest.mark.parametrize("empty", ["", "  ", "\t\n"])
def test_an_empty_setting_counts_as_unset(name: str, empty: str) -> None:
    assert config.read({name: empty}) == config.read({})


def test_settings_of_other_programs_are_not_read() -> None:
    assert config.read({"PATH": "/bin", "FLASK_DEBUG": "1"}) == config.read({})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SITE_NAME", "Café Zebra", "Café Zebra"),
        ("SECRET_KEY", KEY, KEY),
        ("SECRET_KEY_FALLBACKS", f" {KEY} , {OLD_KEY},", [KEY, OLD_KEY]),
        ("INSTANCE_PATH", "/srv/pwreset", Path("/srv/pwreset")),
        ("EMAIL_TIMEOUT", "2.5", 2.5),
        ("EMAIL_DEADLINE", "12", 12.0),
        ("PASSWORD_RESET_TIMEOUT", "60", 60),
        ("INVITE_TIMEOUT", "604800", 604800),
        ("PASSWORD_MIN_LENGTH", "8", 8),
        ("SESSION_LIFETIME_DAYS", "1", 1),
        ("SESSION_MAXIMUM_DAYS", "7", 7),
        ("OUTBOX_POLL_SECONDS", "0.05", 0.05),
        ("OUTBOX_LEASE_SECONDS", "90", 90.0),
        ("OUTBOX_WORKER", "none", "none"),
        ("TRUSTED_PROXIES", "2", 2),
    ],
)
def test_a_setting_is_read_with_its_type(name: str, text: str, value: object) -> None:
    read = config.read({name: f" {text} "})[name]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("text", ["1", "true", "yes", "on", "TRUE", "Yes", "oN"])
def test_a_boolean_is_true_in_every_spelling(name: str, text: str) -> None:
    assert config.read({**RELAY, name: text})[name] is True


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("text", ["0", "false", "no", "off", "FALSE", "No", "oFF"])
def test_a_boolean_is_false_in_every_spelling(name: str, text: str) -> None:
    assert config.read({**RELAY, name: text})[name] is False


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("text", ["ja", "2", "t", "None", "truee", "-1"])
def test_any_other_boolean_stops_the_start(name: str, text: str) -> None:
    problem = problem_of({**RELAY, name: text})
    assert problem.startswith(name)
    assert "write true or false" in problem


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["many", "-1", "1e99", "nan", "inf", "0x10", "99999999999", "1,5"])
def test_a_number_out_of_range_or_no_number_stops_the_start(name: str, text: str) -> None:
    problem = problems_of({**RELAY, name: text})[0]
    assert problem.startswith(f"{name} is ")
    assert "from" in problem


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_takes_no_fraction(name: str) -> None:
    assert "a whole number" in problems_of({**RELAY, name: "9.5"})[0]


@pytest.mark.parametrize("name", NUMBERS)
def test_both_ends_of_a_range_are_allowed(name: str) -> None:
    setting = config.SETTINGS[name]
    # Some hang together: an operation within the deadline, that within the lease, the first wait within the longest.
    short = {"EMAIL_TIMEOUT": "0.1", "EMAIL_DEADLINE": "0.1", "LOGIN_FIRST_WAIT": "1"}
    long = {"OUTBOX_LEASE_SECONDS": "3600"}
    room = {**long, "EMAIL_DEADLINE": "59"} if name == "EMAIL_TIMEOUT" else {**long, **short}
    assert config.read({**RELAY, **room, name: f"{setting.low:g}"})[name] == setting.low
    high = 59 if name == "EMAIL_TIMEOUT" else setting.high
    assert config.read({**RELAY, **room, name: f"{high:g}"})[name] == high


def test_every_problem_is_listed_at_once() -> None:
    wrong = {
        "PUBLIC_URL": "ftp://example.com",
        "SITE_NAME": "two\nlines",
        "SECRET_KEY": "short",
        "SECRET_KEY_FALLBACKS": "x",
        "DATABASE_URL": "mysql://u:p@h/d",
        "EMAIL_USER": "me",
        "EMAIL_PORT": "no",
        "EMAIL_USE_TLS": "true",
        "EMAIL_USE_SSL": "true",
        "EMAIL_TIMEOUT": "0",
        "EMAIL_DEADLINE": "0",
        "PASSWORD_RESET_TIMEOUT": "0",
        "INVITE_TIMEOUT": "0",
        "PASSWORD_MIN_LENGTH": "7",
        "REGISTRATION_OPEN": "maybe",
        "SESSION_LIFETIME_DAYS": "0",
        "SESSION_MAXIMUM_DAYS": "401",
        "OUTBOX_POLL_SECONDS": "0",
        "OUTBOX_LEASE_SECONDS": "0",
        "OUTBOX_WORKER": "many",
        "RATELIMIT_ENABLED": "perhaps",
        "TRUSTED_PROXIES": "-1",
    }
    text = "\n".join(problems_of(wrong))
    assert [name for name in [*wrong, "EMAIL_FROM", "EMAIL_PASS"] if name not in text] == []


def test_each_problem_has_a_line_of_its_own_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        config.read({"REGISTRATION_OPEN": "x", "OUTBOX_WORKER": "y"})
    lines = str(caught.value).splitlines()
    assert [line[:6] for line in lines[1:]] == ["  - RE", "  - OU"]


@pytest.mark.parametrize(("lifetime", "maximum"), [("14", 30), ("30", 30), ("90", 90)])
def test_a_session_lives_a_month_at_most_unless_it_is_to_live_longer(lifetime: str, maximum: int) -> None:
    assert config.read({"SESSION_LIFETIME_DAYS": lifetime})["SESSION_MAXIMUM_DAYS"] == maximum


# --- mail


def test_gmail_needs_an_account_and_its_app_password_and_nothing_else() -> None:
    settings = config.read(GMAIL)
    assert {name: settings[name] for name in settings if name.startswith("EMAIL_")} == {
        "EMAIL_USER": "team@gmail.example",
        "EMAIL_PASS": "abcdefghijklmnop",
        "EMAIL_HOST": "smtp.gmail.com",
        "EMAIL_PORT": 587,
        "EMAIL_USE_TLS": True,
        "EMAIL_USE_SSL": False,
        "EMAIL_FROM": "team@gmail.example",
        "EMAIL_TIMEOUT": 10.0,
        "EMAIL_DEADLINE": 30.0,
        "EMAIL_INTERVAL": 60,
        "EMAIL_HOURLY": 5,
    }


def test_flask_mail_gets_the_mail_settings_under_its_own_names(make_app: MakeApp) -> None:
    app = make_app(**GMAIL)
    state = app.extensions["mail"]
    assert (state.server, state.port, state.username, state.password, state.use_tls, state.use_ssl) == (
        "smtp.gmail.com",
        587,
        "team@gmail.example",
        "abcdefghijklmnop",
        True,
        False,
    )


def test_flask_mail_never_prints_the_conversation(make_app: MakeApp) -> None:
    app = make_app(**GMAIL, DEBUG=True)
    assert not app.extensions["mail"].debug


@pytest.mark.parametrize("space", [" ", "\u00a0", "\t", "\u2009", "\u3000", "\u202f"])
def test_white_space_in_an_app_password_is_dropped(space: str) -> None:
    assert config.read({**GMAIL, "EMAIL_PASS": f"abcd{space}efgh{space}"})["EMAIL_PASS"] == "abcdefgh"


def test_a_password_that_looks_like_a_number_stays_text() -> None:
    assert config.read({**GMAIL, "EMAIL_PASS": "0123"})["EMAIL_PASS"] == "0123"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "LocalHost"])
def test_a_relay_on_this_machine_is_spoken_to_plainly_on_port_25(host: str) -> None:
    settings = config.read({**RELAY, "EMAIL_HOST": host})
    assert (settings["EMAIL_PORT"], settings["EMAIL_USE_TLS"], settings["EMAIL_USE_SSL"]) == (25, False, False)


def test_a_relay_elsewhere_is_spoken_to_over_tls() -> None:
    settings = config.read({**RELAY, "EMAIL_HOST": "mail.example.com"})
    assert (settings["EMAIL_PORT"], settings["EMAIL_USE_TLS"]) == (587, True)


def test_ssl_takes_port_465_and_leaves_starttls_off() -> None:
    settings = config.read({**GMAIL, "EMAIL_USE_SSL": "true"})
    assert (settings["EMAIL_PORT"], settings["EMAIL_USE_TLS"], settings["EMAIL_USE_SSL"]) == (465, False, True)


def test_a_port_that_was_given_is_kept() -> None:
    assert config.read({**GMAIL, "EMAIL_PORT": "2525"})["EMAIL_PORT"] == 2525


def test_ssl_and_starttls_together_stop_the_start() -> None:
    problem = problem_of({**GMAIL, "EMAIL_USE_SSL": "1", "EMAIL_USE_TLS": "1"})
    assert "EMAIL_USE_TLS and EMAIL_USE_SSL exclude each other" in problem


def test_a_password_is_not_sent_in_clear_over_the_network() -> None:
    problem = problem_of({**GMAIL, "EMAIL_USE_TLS": "false"})
    assert "EMAIL_USE_TLS" in problem
    assert "in clear" in problem


def test_a_password_may_go_in_clear_to_this_machine() -> None:
    assert config.read({**GMAIL, "EMAIL_HOST": "localhost"})["EMAIL_USE_TLS"] is False


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"EMAIL_USER": "a@b.example"}, "EMAIL_PASS"), ({**RELAY, "EMAIL_PASS": "abcdefgh"}, "EMAIL_USER")],
)
def test_half_a_login_stops_the_start_with_gmails_page(given: dict[str, str], missing: str) -> None:
    problem = problem_of(given)
    assert problem.startswith(f"{missing} is missing")
    assert "https://myaccount.google.com/apppasswords" in problem


@pytest.mark.parametrize("sender", ["", "me", "me@", "@example.com", "Name", "Name <me>"])
def test_a_relay_without_a_sender_stops_the_start(sender: str) -> None:
    assert problem_of({**RELAY, "EMAIL_FROM": sender}).startswith("EMAIL_FROM ")


@pytest.mark.parametrize("sender", ["me@example.com", "Accounts <me@example.com>", '"A, B" <me@example.com>'])
def test_a_sender_may_have_a_name(sender: str) -> None:
    assert config.read({**RELAY, "EMAIL_FROM": sender})["EMAIL_FROM"] == sender


def test_a_deadline_must_end_before_the_lease() -> None:
    problem = problem_of({"EMAIL_DEADLINE": "30", "OUTBOX_LEASE_SECONDS": "30"})
    assert "EMAIL_DEADLINE must be below OUTBOX_LEASE_SECONDS" in problem


def test_one_operation_may_not_outlast_the_whole_mail() -> None:
    assert problem_of({"EMAIL_TIMEOUT": "31"}).startswith("EMAIL_TIMEOUT")


# --- PUBLIC_URL


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://accounts.example.com", "https://accounts.example.com"),
        ("https://accounts.example.com/", "https://accounts.example.com"),
        ("HTTPS://Accounts.Example.COM", "https://accounts.example.com"),
        ("https://accounts.example.com:443", "https://accounts.example.com"),
        ("https://accounts.example.com:8443/", "https://accounts.example.com:8443"),
        ("https://accounts.example.com:80", "https://accounts.example.com:80"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://192.0.2.7:8443", "https://192.0.2.7:8443"),
        ("https://[2001:db8::7]", "https://[2001:db8::7]"),
        ("https://[2001:DB8::7]:8443", "https://[2001:db8::7]:8443"),
        ("https://intranet", "https://intranet"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_public_url_is_kept_as_an_origin(text: str, origin: str) -> None:
    assert config.read({**PUBLIC, **GMAIL, "PUBLIC_URL": text})["PUBLIC_URL"] == origin


@pytest.mark.parametrize(
    "text",
    [
        "accounts.example.com",
        "//accounts.example.com",
        "ftp://accounts.example.com",
        "javascript:alert(1)",
        "https:accounts.example.com",
        "https:///reset",
        "https://",
        "https://:443",
        "https://accounts.example.com/app",
        "https://accounts.example.com/?a=b",
        "https://accounts.example.com?",
        "https://accounts.example.com#",
        "https://accounts.example.com/#top",
        "https://user@accounts.example.com",
        "https://user:pass@accounts.example.com",
        "https://@accounts.example.com",
        "https://accounts.example.com:0",
        "https://accounts.example.com:65536",
        "https://accounts.example.com:https",
        "https://accounts.example.com:443:443",
        "https://bücher.example",
        "https://accounts。example.com",
        "https://ａccounts.example.com",
        "https://accounts.example.com\\@evil.example",
        "https://accounts.example.com\\evil",
        "https://acc\tounts.example.com",
        "https://acc\nounts.example.com",
        "https://acc\rounts.example.com",
        "ht\ntps://accounts.example.com",
        "https://acc\x00ounts.example.com",
        "https://accounts.example.com\x7f",
        "https://acc ounts.example.com",
        "https://a_b.example.com",
        "https://a,b.example.com",
        "https://{host}",
        "https://%61ccounts.example.com",
        "https://[::1",
        "https://::1",
        "https://[nonsense]",
        "http://accounts.example.com",
        "http://192.0.2.7",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
    ],
)
def test_what_is_no_safe_origin_stops_the_start(text: str) -> None:
    problem = problem_of({**PUBLIC, **GMAIL, "PUBLIC_URL": text})
    assert problem.startswith("PUBLIC_URL ")
    assert "https://accounts.example.com" in problem


def test_an_international_name_is_asked_for_in_its_ascii_form() -> None:
    assert "xn--" in problem_of({**PUBLIC, **GMAIL, "PUBLIC_URL": "https://bücher.example"})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "localhost"),
        ({**PUBLIC, **GMAIL}, "accounts.example.com"),
        ({**PUBLIC, **GMAIL, "PUBLIC_URL": "https://[2001:db8::7]:8443"}, "2001:db8::7"),
        ({**PUBLIC, **GMAIL, "SITE_NAME": "Zebra"}, "Zebra"),
    ],
)
def test_the_site_is_named_after_its_host(given: dict[str, str], name: str) -> None:
    assert config.read(given)["SITE_NAME"] == name


@pytest.mark.parametrize("name", ["two\nlines", "a\r\nBcc: x@example.com", "x" * 101, "a\x00b", "bell\x07"])
def test_a_site_name_that_breaks_a_subject_stops_the_start(name: str) -> None:
    assert problem_of({"SITE_NAME": name}).startswith("SITE_NAME ")


# --- secret keys


def test_a_public_start_names_the_missing_key_and_mail_server_together() -> None:
    problems = problems_of({"PUBLIC_URL": "https://accounts.example.com"})
    assert [problem.split()[0] for problem in problems] == ["SECRET_KEY", "EMAIL_USER"]
    assert "secrets.token_urlsafe" in problems[0]


def test_a_public_start_with_a_relay_is_taken() -> None:
    assert config.read({**PUBLIC, **RELAY})["EMAIL_HOST"] == "localhost"


@pytest.mark.parametrize("key", ["short", "x" * 64, "k3Yl-9aQzX7wPvT2bNcR5dMfG8hJsL4", "abcabcabc" * 8])
def test_a_weak_key_stops_the_start(key: str) -> None:
    problem = problem_of({**PUBLIC, **GMAIL, "SECRET_KEY": key})
    assert problem.startswith("SECRET_KEY is too easy to guess")


@pytest.mark.parametrize(
    "key",
    [
        "django-insecure-k3Yl9aQzX7wPvT2bNcR5dMfG8hJsL4",
        "k3Yl-9aQzX7wPvT2-CHANGE-ME-bNcR5dMfG8hJsL4",
        "my-very-long-and-very-secret-key-for-flask",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        "09D25E094FAA6CA2556C818166B7A9563B93F7099F6F0F4CAA6CF63B88E8D3E7",
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "1a2b3c4d5e" * 5,
    ],
)
def test_a_key_that_looks_like_an_example_stops_the_start(key: str) -> None:
    assert problem_of({**PUBLIC, **GMAIL, "SECRET_KEY": key}).startswith("SECRET_KEY is too easy to guess")


def test_a_key_that_looks_like_an_example_is_good_enough_for_one_machine() -> None:
    assert config.read({"SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz"})["SECRET_KEY"]


@pytest.mark.parametrize("make", [lambda: secrets.token_urlsafe(48), lambda: secrets.token_hex(16)])
def test_random_keys_do_not_look_like_examples(make: Callable[[], str]) -> None:
    assert sum(config._looks_like_an_example(make()) for _ in range(1000)) <= 1


@pytest.mark.parametrize(
    "settings",
    [
        {"SECRET_KEY_FALLBACKS": KEY},
        {"SECRET_KEY_FALLBACKS": f"{OLD_KEY},{OLD_KEY}"},
        {"METRICS_TOKEN": KEY},
        {"METRICS_TOKEN": OLD_KEY, "SECRET_KEY_FALLBACKS": OLD_KEY},
        {"EMAIL_PASS": KEY},
        {"DATABASE_URL": f"postgresql://pwreset:{KEY}@db.example.com/pwreset"},
        {"REDIS_URL": f"redis://:{KEY}@redis.example.com/0"},
        {"CELERY_BROKER_URL": f"amqp://pwreset:{KEY}@broker.example.com//"},
    ],
)
def test_a_key_that_is_used_twice_stops_the_start(settings: dict[str, str]) -> None:
    problem = problem_of({**PUBLIC, **GMAIL, "SECRET_KEY": KEY, **settings})
    assert problem.startswith("SECRET_KEY ")
    assert KEY not in problem


def test_the_key_of_local_mode_is_not_one_for_the_public(tmp_path: Path) -> None:
    key = config.local_secret_key(tmp_path)
    given = {**GMAIL, "SECRET_KEY": key, "INSTANCE_PATH": str(tmp_path)}
    assert config.read(given)["SECRET_KEY"] == key
    assert "local mode made" in problem_of({**PUBLIC, **given})


def test_a_weak_key_stops_a_local_start_too() -> None:
    assert problem_of({"SECRET_KEY": "short"}).startswith("SECRET_KEY ")


def test_a_key_of_32_bytes_is_enough_whatever_its_letters() -> None:
    key = "äöüßéèêñ" * 2  # 16 characters, 32 bytes
    assert config.read({"SECRET_KEY": key})["SECRET_KEY"] == key


def test_one_weak_fallback_stops_the_start() -> None:
    problem = problem_of({**PUBLIC, **GMAIL, "SECRET_KEY_FALLBACKS": f"{OLD_KEY},short"})
    assert problem.startswith("SECRET_KEY_FALLBACKS is too easy to guess")


SECRETS = {
    "SECRET_KEY": "hunter2hunter2",
    "SECRET_KEY_FALLBACKS": "swordfish",
    "EMAIL_PASS": "correcthorse",
    "DATABASE_URL": "mysql://root:batterystaple@db.example/accounts",
}


@pytest.mark.parametrize(
    "database",
    [
        SECRETS["DATABASE_URL"],
        "postgresql//root:batterystaple@db.example/accounts",
        "oracle+cx://root:batterystaple@db",
        "postgresql://root:batterystaple@db.example:port/accounts",
    ],
)
def test_no_message_repeats_a_secret(database: str) -> None:
    given = {**SECRETS, "DATABASE_URL": database, "PUBLIC_URL": "https://root:batterystaple@x.example"}
    with pytest.raises(ConfigError) as caught:
        config.read({**given, "EMAIL_USE_TLS": "no", "EMAIL_HOST": "mail.example.com"})
    told = f"{caught.value} {caught.value!r} {caught.value.problems}"
    values = ("hunter2", "swordfish", "correcthorse", "batterystaple")
    assert [value for value in values if value in told] == []


def test_the_local_key_is_made_once(tmp_path: Path) -> None:
    first = config.local_secret_key(tmp_path / "instance")
    assert config.local_secret_key(tmp_path / "instance") == first
    assert len(first) >= config.MINIMUM_KEY_BYTES


def test_the_local_key_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    config.local_secret_key(tmp_path)
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600


def test_making_the_local_key_leaves_nothing_else_behind(tmp_path: Path) -> None:
    config.local_secret_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_two_instances_have_two_keys(tmp_path: Path) -> None:
    assert config.local_secret_key(tmp_path / "a") != config.local_secret_key(tmp_path / "b")


def test_threads_that_start_together_agree_on_the_local_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(config.local_secret_key, [tmp_path / "new"] * 64))
    assert len(set(keys)) == 1
    assert keys[0]


def test_processes_that_start_together_agree_on_the_local_key(tmp_path: Path) -> None:
    program = "import config, pathlib, sys; print(config.local_secret_key(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", program, str(tmp_path / "new")]
    started = [subprocess.Popen(command, cwd=config.ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert len(keys) == 1
    assert "" not in keys


def test_two_local_applications_of_one_folder_share_the_key(make_app: MakeApp) -> None:
    assert make_app().secret_key == make_app().secret_key


# --- database


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgresql_url_means_psycopg(scheme: str) -> None:
    given = {"DATABASE_URL": f"{scheme}://ada:batterystaple@db.example:5433/accounts?sslmode=require"}
    url = "postgresql+psycopg://ada:batterystaple@db.example:5433/accounts?sslmode=require"
    assert config.read(given)["DATABASE_URL"] == url


NEEDS_A_PACKAGE = [
    ("DATABASE_URL", "postgresql://db.example/accounts", "psycopg"),
    ("REDIS_URL", "redis://localhost:6379/0", "redis"),
    ("REDIS_URL", "rediss://cache.example", "redis"),
    ("CELERY_BROKER_URL", "redis://localhost:6379/1", "celery"),
    ("CELERY_BROKER_URL", "amqp://guest:guest@localhost:5672//", "celery"),
    ("CELERY_BROKER_URL", "amqps://mq.example", "celery"),
]


@pytest.mark.parametrize(("name", "url", "package"), NEEDS_A_PACKAGE)
def test_a_store_whose_package_is_missing_says_how_to_install_it(
    name: str, url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to make an import fail
    problem = problem_of({name: url})
    assert problem.startswith(f"{name} needs ")
    assert problem.endswith("; install it with: .venv/bin/python -m pip install -r requirements-scale.txt")


@pytest.mark.parametrize(("name", "url", "package"), NEEDS_A_PACKAGE)
def test_a_store_whose_package_is_there_is_taken(name: str, url: str, package: str) -> None:
    assert str(config.read({name: url})[name]).endswith(url.partition("://")[2])


@pytest.mark.parametrize(
    "url", ["localhost:6379", "redis://", "http://localhost", "redis://h:0", "redis://h:x", "redis://h/rings", "a b"]
)
@pytest.mark.parametrize("name", ["REDIS_URL", "CELERY_BROKER_URL"])
def test_what_is_no_url_of_a_store_is_refused_with_an_example(name: str, url: str) -> None:
    problem = problem_of({name: url})
    assert problem.startswith(f"{name} is not a URL of redis")
    assert "redis://host:port" in problem


def test_the_limits_are_not_counted_in_a_message_broker() -> None:
    assert problem_of({"REDIS_URL": "amqp://localhost"}).startswith("REDIS_URL is not a URL of redis or rediss;")


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb", "oracle", "postgresql+psycopg2"])
def test_another_database_is_refused_with_a_sentence(scheme: str) -> None:
    problem = problem_of({"DATABASE_URL": f"{scheme}://u:p@h/d"})
    assert problem.startswith(f"DATABASE_URL names {scheme}; SQLite and PostgreSQL are supported")


@pytest.mark.parametrize("text", ["accounts.db", "sqlite", "://x", "postgresql:/db", "host:port"])
def test_what_is_no_database_url_is_refused_with_an_example(text: str) -> None:
    problem = problem_of({"DATABASE_URL": text})
    assert problem.startswith("DATABASE_URL is not a database URL; write postgresql://")


def test_sqlite_lies_in_the_instance_folder_unless_told_otherwise(tmp_path: Path) -> None:
    settings = config.read({"INSTANCE_PATH": str(tmp_path)})
    assert settings["DATABASE_URL"] == f"sqlite:///{tmp_path}/pwreset.db"


def test_a_sqlite_url_is_kept(tmp_path: Path) -> None:
    assert config.read({"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})["DATABASE_URL"] == f"sqlite:///{tmp_path}/x.db"


# --- what the operator sees


@pytest.mark.parametrize("text", ["JSON", "xml", "yes"])
def test_another_format_of_the_log_is_refused(text: str) -> None:
    assert problem_of({"LOG_FORMAT": text}) == f"LOG_FORMAT is {text!r}: write text or json."


@pytest.mark.parametrize("text", ["two words", "schlüssel", "a\tb"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(text: str) -> None:
    problem = problem_of({"METRICS_TOKEN": text})
    assert problem.startswith("METRICS_TOKEN ")
    assert text not in problem


# --- .env


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the `.env` of a root of its own."""
    monkeypatch.setattr(config, "ROOT", tmp_path)
    path = tmp_path / ".env"
    path.write_text(f"SITE_NAME=From file\nSECRET_KEY='{KEY}'\nPASSWORD_MIN_LENGTH=20\nEMAIL_USER=\n", encoding="utf-8")
    return path


def test_settings_are_read_from_the_file_in_the_root(env_file: Path) -> None:
    settings = config.load({})
    assert (settings["SITE_NAME"], settings["SECRET_KEY"], settings["PASSWORD_MIN_LENGTH"]) == ("From file", KEY, 20)


def test_the_environment_goes_before_the_file(env_file: Path) -> None:
    settings = config.load({"SITE_NAME": "From environment"})
    assert (settings["SITE_NAME"], settings["PASSWORD_MIN_LENGTH"]) == ("From environment", 20)


@pytest.mark.parametrize("text", ["1", "true", "yes", "on", "TRUE"])
def test_the_file_is_left_alone_when_told_so(env_file: Path, text: str) -> None:
    assert config.load({"FLASK_SKIP_DOTENV": text})["SITE_NAME"] == "localhost"


def test_reading_the_file_changes_no_variable_of_the_process(env_file: Path) -> None:
    before = dict(os.environ)
    config.load({})
    assert dict(os.environ) == before


def test_a_root_without_the_file_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ROOT", tmp_path)
    assert config.load({}) == config.read({})


def test_tests_never_read_the_developers_file() -> None:
    assert os.environ["FLASK_SKIP_DOTENV"] == "1"


# --- create_app


def test_a_name_that_is_no_setting_goes_to_flask(make_app: MakeApp) -> None:
    app = make_app(TESTING=True, MY_OWN=[1, 2])
    assert (app.testing, app.config["MY_OWN"]) == (True, [1, 2])


def test_a_setting_given_as_none_counts_as_unset(tmp_path: Path) -> None:
    app = create_app({"INSTANCE_PATH": tmp_path, "PUBLIC_URL": None, "SITE_NAME": None, "TRUSTED_PROXIES": None})
    assert (app.config["PUBLIC_URL"], app.config["SITE_NAME"], app.config["TRUSTED_PROXIES"]) == (None, "localhost", 0)


def test_a_setting_may_be_given_as_a_python_value(make_app: MakeApp) -> None:
    app = make_app(REGISTRATION_OPEN=False, SESSION_LIFETIME_DAYS=3)
    assert (app.config["REGISTRATION_OPEN"], app.permanent_session_lifetime.days) == (False, 3)


def test_given_settings_are_read_instead_of_the_environment(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_NAME", "From environment")
    assert make_app().config["SITE_NAME"] == "localhost"


def test_without_given_settings_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_NAME", "From environment")
    monkeypatch.setenv("INSTANCE_PATH", str(tmp_path))
    assert create_app().config["SITE_NAME"] == "From environment"


def test_a_wrong_setting_stops_create_app(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PASSWORD_MIN_LENGTH"):
        create_app({"INSTANCE_PATH": tmp_path, "PASSWORD_MIN_LENGTH": 2})


def test_the_instance_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    create_app({"INSTANCE_PATH": tmp_path / "new" / "instance"})
    assert stat.S_IMODE((tmp_path / "new" / "instance").stat().st_mode) == 0o700


def test_queries_log_no_values(app) -> None:
    with app.app_context():
        assert db.engine.hide_parameters is True


def test_mail_can_be_recorded_under_testing(make_app: MakeApp) -> None:
    app = make_app(TESTING=True)
    add_user(app, "alice@example.com", "seven green lanterns drift")
    Visitor(app).ask_for_reset()
    with mail.record_messages() as sent:
        Inbox(app).deliver()
    assert [message.recipients for message in sent] == [["alice@example.com"]]


def test_testing_sends_no_mail_to_a_mail_server(make_app: MakeApp) -> None:
    app = make_app(TESTING=True, EMAIL_HOST="127.0.0.1", EMAIL_PORT=1, EMAIL_FROM="accounts@example.com")
    add_user(app, "alice@example.com", "seven green lanterns drift")
    Visitor(app).ask_for_reset()
    with mail.record_messages() as sent:
        assert Inbox(app).deliver() == (1, None)
    assert [message.recipients for message in sent] == [["alice@example.com"]]
