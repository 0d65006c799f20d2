"""The checks of the settings: what stops a start, and what the message says."""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import config
from config import ConfigError
from config_checks import looks_like_an_example
from tests.support.settings import GMAIL, KEY, OLD_KEY, PUBLIC, RELAY, problem_of, problems_of

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
        "https://[dead]",
        "https://\u212aaccounts.example.com",
        "https://accounts..example.com",
        f"https://{'a' * 64}.example.com",
        "http://accounts.example.com",
        "http://192.0.2.7",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
    ],
)
def test_a_public_url_that_is_not_a_safe_origin_stops_the_start(text: str) -> None:
    problem = problem_of({**PUBLIC, **GMAIL, "PUBLIC_URL": text})
    assert problem.startswith("PUBLIC_URL ")
    assert "https://accounts.example.com" in problem


def test_an_international_host_must_be_in_its_ascii_form() -> None:
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


def test_a_public_start_with_a_relay_is_accepted() -> None:
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
        "zyxwvutsrqponmlkjihgfedcbazyxwvu",
        "bcdefghijklmnopqrstuvwxyz123456789",
        "acegikmoqsuwybdfhjlnprtvxzacegik",
        "1a2b3c4d5e" * 5,
    ],
)
def test_a_key_that_looks_like_an_example_stops_the_start(key: str) -> None:
    assert problem_of({**PUBLIC, **GMAIL, "SECRET_KEY": key}).startswith("SECRET_KEY is too easy to guess")


def test_a_key_that_looks_like_an_example_is_allowed_in_local_mode() -> None:
    assert config.read({"SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz"})["SECRET_KEY"]


@pytest.mark.parametrize("make", [lambda: secrets.token_urlsafe(48), lambda: secrets.token_hex(16)])
def test_random_keys_do_not_look_like_examples(make: Callable[[], str]) -> None:
    assert sum(looks_like_an_example(make()) for _ in range(1000)) <= 1


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


def test_the_local_key_is_refused_in_public_mode(tmp_path: Path) -> None:
    key = config.local_secret_key(tmp_path)
    given = {**GMAIL, "SECRET_KEY": key, "INSTANCE_PATH": str(tmp_path)}
    assert config.read(given)["SECRET_KEY"] == key
    assert "the key of local mode" in problem_of({**PUBLIC, **given})


def test_a_weak_key_stops_a_local_start_too() -> None:
    assert problem_of({"SECRET_KEY": "short"}).startswith("SECRET_KEY ")


def test_a_key_needs_32_bytes_and_not_32_characters() -> None:
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
    text = f"{caught.value} {caught.value!r} {caught.value.problems}"
    values = ("hunter2", "swordfish", "correcthorse", "batterystaple")
    assert [value for value in values if value in text] == []


# --- email


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


@pytest.mark.parametrize("space", [" ", "\u00a0", "\t", "\u2009", "\u3000", "\u202f"])
def test_white_space_in_an_app_password_is_dropped(space: str) -> None:
    assert config.read({**GMAIL, "EMAIL_PASS": f"abcd{space}efgh{space}"})["EMAIL_PASS"] == "abcdefgh"


def test_a_password_that_looks_like_a_number_stays_text() -> None:
    assert config.read({**GMAIL, "EMAIL_PASS": "0123"})["EMAIL_PASS"] == "0123"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "LocalHost"])
def test_a_relay_on_this_machine_is_used_unencrypted_on_port_25(host: str) -> None:
    settings = config.read({**RELAY, "EMAIL_HOST": host})
    assert (settings["EMAIL_PORT"], settings["EMAIL_USE_TLS"], settings["EMAIL_USE_SSL"]) == (25, False, False)


def test_a_relay_on_another_machine_is_used_over_tls() -> None:
    settings = config.read({**RELAY, "EMAIL_HOST": "mail.example.com"})
    assert (settings["EMAIL_PORT"], settings["EMAIL_USE_TLS"]) == (587, True)


def test_ssl_uses_port_465_without_starttls() -> None:
    settings = config.read({**GMAIL, "EMAIL_USE_SSL": "true"})
    assert (settings["EMAIL_PORT"], settings["EMAIL_USE_TLS"], settings["EMAIL_USE_SSL"]) == (465, False, True)


@pytest.mark.parametrize("host", ["smtp.example.com:587", "smtp://mail.example.com", "a..example", "two words"])
def test_a_mail_server_that_is_not_a_host_name_stops_the_start(host: str) -> None:
    assert problem_of({**RELAY, "EMAIL_HOST": host}).startswith("EMAIL_HOST is not a host name")


@pytest.mark.parametrize("name", ["EMAIL_USER", "EMAIL_PASS"])
def test_a_login_beyond_ascii_stops_the_start(name: str) -> None:
    given = {**GMAIL, "EMAIL_FROM": "accounts@example.com", name: "schlüssel"}
    assert problem_of(given).startswith(f"{name} contains non-ASCII characters")


def test_a_port_that_was_given_is_kept() -> None:
    assert config.read({**GMAIL, "EMAIL_PORT": "2525"})["EMAIL_PORT"] == 2525


def test_ssl_and_starttls_together_stop_the_start() -> None:
    problem = problem_of({**GMAIL, "EMAIL_USE_SSL": "1", "EMAIL_USE_TLS": "1"})
    assert "EMAIL_USE_TLS and EMAIL_USE_SSL can't both be on" in problem


def test_a_password_is_not_sent_in_clear_over_the_network() -> None:
    problem = problem_of({**GMAIL, "EMAIL_USE_TLS": "false"})
    assert "EMAIL_USE_TLS" in problem
    assert "unencrypted" in problem


def test_a_password_may_go_in_clear_to_this_machine() -> None:
    assert config.read({**GMAIL, "EMAIL_HOST": "localhost"})["EMAIL_USE_TLS"] is False


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"EMAIL_USER": "a@b.example"}, "EMAIL_PASS"), ({**RELAY, "EMAIL_PASS": "abcdefgh"}, "EMAIL_USER")],
)
def test_a_user_without_a_password_or_the_reverse_stops_the_start(given: dict[str, str], missing: str) -> None:
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


def test_a_deadline_must_end_before_the_cooldown() -> None:
    problem = problem_of({"EMAIL_DEADLINE": "30", "EMAIL_INTERVAL": "30"})
    assert "EMAIL_DEADLINE must be below EMAIL_INTERVAL" in problem


def test_the_first_wait_must_not_exceed_the_longest() -> None:
    assert problem_of({"LOGIN_FIRST_WAIT": "20", "LOGIN_LONGEST_WAIT": "10"}).startswith("LOGIN_FIRST_WAIT")


def test_the_timeout_of_one_operation_must_not_exceed_the_deadline() -> None:
    assert problem_of({"EMAIL_TIMEOUT": "31"}).startswith("EMAIL_TIMEOUT")


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
def test_a_url_whose_package_is_missing_stops_the_start_with_the_command_to_install_it(
    name: str, url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to make an import fail
    problem = problem_of({name: url})
    assert problem.startswith(f"{name} needs ")
    assert problem.endswith("; install it with: .venv/bin/python -m pip install -r requirements-scale.txt")


@pytest.mark.parametrize(("name", "url", "package"), NEEDS_A_PACKAGE)
def test_a_url_whose_package_is_installed_is_accepted(name: str, url: str, package: str) -> None:
    assert str(config.read({name: url})[name]).endswith(url.partition("://")[2])


@pytest.mark.parametrize(
    "url", ["localhost:6379", "redis://", "http://localhost", "redis://h:0", "redis://h:x", "redis://h/rings", "a b"]
)
@pytest.mark.parametrize("name", ["REDIS_URL", "CELERY_BROKER_URL"])
def test_an_invalid_redis_or_broker_url_is_refused_with_an_example(name: str, url: str) -> None:
    problem = problem_of({name: url})
    assert problem.startswith(f"{name} is not a URL of redis")
    assert "redis://host:port" in problem


def test_redis_url_must_not_name_a_message_broker() -> None:
    assert problem_of({"REDIS_URL": "amqp://localhost"}).startswith("REDIS_URL is not a URL of redis or rediss;")


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb", "oracle", "postgresql+psycopg2"])
def test_another_database_is_refused_by_its_name(scheme: str) -> None:
    problem = problem_of({"DATABASE_URL": f"{scheme}://u:p@h/d"})
    assert problem.startswith(f"DATABASE_URL names {scheme}; SQLite and PostgreSQL are supported")


@pytest.mark.parametrize("text", ["accounts.db", "sqlite", "://x", "postgresql:/db", "host:port"])
def test_an_invalid_database_url_is_refused_with_an_example(text: str) -> None:
    problem = problem_of({"DATABASE_URL": text})
    assert problem.startswith("DATABASE_URL is not a database URL; write postgresql://")


def test_the_default_database_is_sqlite_in_the_instance_folder(tmp_path: Path) -> None:
    settings = config.read({"INSTANCE_PATH": str(tmp_path)})
    assert settings["DATABASE_URL"] == f"sqlite:///{tmp_path}/pwreset.db"


def test_a_sqlite_url_is_kept(tmp_path: Path) -> None:
    assert config.read({"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})["DATABASE_URL"] == f"sqlite:///{tmp_path}/x.db"


# --- what the operator sees


@pytest.mark.parametrize("text", ["JSON", "xml", "yes"])
def test_an_unknown_log_format_is_refused(text: str) -> None:
    assert problem_of({"LOG_FORMAT": text}) == f"LOG_FORMAT is {text!r}: write text or json."


@pytest.mark.parametrize("text", ["two words", "schlüssel", "a\tb"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(text: str) -> None:
    problem = problem_of({"METRICS_TOKEN": text})
    assert problem.startswith("METRICS_TOKEN ")
    assert text not in problem
