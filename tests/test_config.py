"""Settings: how each is read, what its default is, and how the application uses them."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pytest

import config
import config_checks
from config import ConfigError
from pwreset import create_app
from pwreset.extensions import db, mail
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.settings import GMAIL, KEY, OLD_KEY, PUBLIC, RELAY, problem_of, problems_of

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
    # Some limit each other: the timeout is within the deadline, the deadline within the lease, the waits in order.
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


def test_the_order_of_the_checks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"PUBLIC_URL": "x", "SECRET_KEY": "short", "DATABASE_URL": "x", "EMAIL_USER": "me", "EMAIL_TIMEOUT": "300"}
    before = problems_of(wrong)
    monkeypatch.setattr(config, "CHECKS", config_checks.CHECKS[::-1])
    after = problems_of(wrong)
    assert before != after
    assert sorted(before) == sorted(after)


@pytest.mark.parametrize("check", config_checks.CHECKS)
def test_no_check_changes_a_setting(check: Callable[[Mapping[str, object]], Iterator[str]]) -> None:
    assert list(check(MappingProxyType(config.read({**PUBLIC, **GMAIL})))) == []


def test_each_problem_has_a_line_of_its_own_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        config.read({"REGISTRATION_OPEN": "x", "OUTBOX_WORKER": "y"})
    lines = str(caught.value).splitlines()
    assert [line[:6] for line in lines[1:]] == ["  - RE", "  - OU"]


@pytest.mark.parametrize(("lifetime", "maximum"), [("14", 30), ("30", 30), ("90", 90)])
def test_a_session_ends_after_30_days_unless_its_lifetime_is_longer(lifetime: str, maximum: int) -> None:
    assert config.read({"SESSION_LIFETIME_DAYS": lifetime})["SESSION_MAXIMUM_DAYS"] == maximum


# --- the key of local mode


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


def test_a_start_waits_for_the_key_that_another_start_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    path.touch()
    with ThreadPoolExecutor() as pool:
        key = pool.submit(config.local_secret_key, tmp_path)
        time.sleep(0.1)
        assert not key.done()
        path.write_text(KEY, encoding="ascii")
        assert key.result() == KEY


def test_a_file_without_a_key_stops_the_start_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch()
    with pytest.raises(ConfigError, match=f"SECRET_KEY can't be read from {tmp_path}/secret_key; delete the file"):
        config.local_secret_key(tmp_path)


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
def test_the_file_is_not_read_if_flask_skip_dotenv_is_true(env_file: Path, text: str) -> None:
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


def test_emails_can_be_recorded_under_testing(make_app: MakeApp) -> None:
    app = make_app(TESTING=True)
    add_user(app, "alice@example.com", "seven green lanterns drift")
    Visitor(app).request_reset()
    with mail.record_messages() as sent:
        Inbox(app).deliver()
    assert [message.recipients for message in sent] == [["alice@example.com"]]


def test_testing_sends_no_email_to_a_mail_server(make_app: MakeApp) -> None:
    app = make_app(TESTING=True, EMAIL_HOST="127.0.0.1", EMAIL_PORT=1, EMAIL_FROM="accounts@example.com")
    add_user(app, "alice@example.com", "seven green lanterns drift")
    Visitor(app).request_reset()
    with mail.record_messages() as sent:
        assert Inbox(app).deliver() == (1, None)
    assert [message.recipients for message in sent] == [["alice@example.com"]]


def test_flask_mail_gets_the_email_settings_under_its_own_names(make_app: MakeApp) -> None:
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
