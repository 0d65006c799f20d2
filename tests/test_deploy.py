"""The commands, settings and units that deploy/ and docs/deploy.md name exist (test_nginx.py runs nginx itself)."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from celery.bin.celery import celery
from flask import Flask

from config import SETTINGS
from pwreset.monitoring.metrics import COUNTERS, GAUGES
from tests.support.databases import on_sqlite

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SERVICES = sorted(DEPLOY.glob("*.service"))
PROGRAMS = Path(sys.executable).parent
WHERE = "/srv/pwreset"
ANALYZE = shutil.which("systemd-analyze")
HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "Restart": "always",
}
every_service = pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)


class Unit(RawConfigParser):
    """A unit file; what is named twice is kept as lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        self.text = path.read_text(encoding="utf-8")
        self.read_string(self.text)

    def optionxform(self, optionstr: str) -> str:
        """Keep the case."""
        return optionstr

    def commands(self) -> Iterator[list[str]]:
        """Yield every command line, in words."""
        for line in re.findall(r"^Exec\w+=(.*)$", self.text, re.MULTILINE):
            yield shlex.split(line)


COMMON = Unit(DEPLOY / "pwreset-.service.d" / "common.conf")["Service"]


def flask_command(app: Flask, words: list[str]) -> click.Command | None:
    """Return the command that `flask WORDS` runs, or None."""
    command: click.Command | None = app.cli
    for word in words:
        if not isinstance(command, click.Group) or not re.fullmatch(r"[a-z-]+", word):
            break
        command = command.commands.get(word)
    return command


@on_sqlite
@every_service
def test_every_command_of_a_unit_exists(app: Flask, path: Path):
    commands = list(Unit(path).commands())
    assert commands
    for program, *words in commands:
        if program == "/bin/kill":
            continue
        assert program.startswith(f"{WHERE}/.venv/bin/")
        name = Path(program).name
        assert (PROGRAMS / name).exists()
        if name == "flask":
            assert isinstance(flask_command(app, words), click.Command)
        elif name == "celery":
            assert words[0] == "-A"
            assert find_spec(words[1])
            assert words[2] in celery.commands
        else:
            assert name == "gunicorn"
            assert (ROOT / "gunicorn.conf.py").exists()


@every_service
def test_every_service_is_fenced_in_and_reads_the_same_settings(path: Path):
    service = Unit(path)["Service"]
    assert service["User"] == "pwreset"
    assert service["WorkingDirectory"] == WHERE
    assert service["EnvironmentFile"] == "/etc/pwreset/env"
    assert service["StateDirectory"] == "pwreset"
    assert {name: COMMON[name] for name in HARDENING} == HARDENING


def test_an_email_under_way_may_take_its_time_when_a_service_stops():
    assert int(COMMON["TimeoutStopSec"]) > SETTINGS["EMAIL_DEADLINE"].high + 10  # gunicorn.conf.py adds 10


def test_nginx_and_the_socket_agree_on_the_port_of_gunicorn():
    port = Unit(DEPLOY / "pwreset-web.socket")["Socket"]["ListenStream"]
    assert port == "127.0.0.1:8000"  # where gunicorn listens by itself, too
    assert f"server {port};" in (DEPLOY / "nginx.conf").read_text(encoding="utf-8")


def test_nginx_speaks_no_tls_before_1_2() -> None:
    said = re.findall(r"ssl_protocols ([^;]+);", (DEPLOY / "nginx.conf").read_text(encoding="utf-8"))
    assert said == ["TLSv1.2 TLSv1.3"]


@every_service
def test_systemd_finds_nothing_wrong_with_a_unit_and_little_that_it_could_harm(path: Path, tmp_path: Path):
    if ANALYZE is None:
        pytest.skip("There is no systemd-analyze. Install it with: sudo apt-get install systemd")
    shutil.copytree(DEPLOY, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):
        text = unit.read_text(encoding="utf-8").replace(f"{WHERE}/.venv/bin", str(PROGRAMS)).replace(WHERE, str(ROOT))
        unit.with_name(unit.name.replace("@.", "@1.")).write_text(text, encoding="utf-8")
    name = path.name.replace("@.", "@1.")
    assert analyze(tmp_path, "verify", "--man=no", "--recursive-errors=no", name) == ""
    score = re.search(r"exposure level for \S+: ([\d.]+)", analyze(tmp_path, "security", "--offline=true", name))
    assert float(score[1]) < 2


def analyze(folder: Path, *arguments: str) -> str:
    """Run systemd-analyze on a folder of units; return all that it says."""
    done = subprocess.run(
        [ANALYZE, "--no-pager", *arguments[:-1], f"./{arguments[-1]}"],
        cwd=folder,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stderr + done.stdout


@on_sqlite
def test_every_command_of_ours_in_the_guide_exists(app: Flask):
    lines = re.findall(r"\.venv/bin/flask ([a-z -]+)", GUIDE)
    assert lines
    for line in lines:
        assert isinstance(flask_command(app, line.split()), click.Command), line


def test_every_setting_in_the_guide_exists():
    named = set(re.findall(r"\b([A-Z]+_[A-Z_]+)\b", GUIDE)) - {"WEB_CONCURRENCY"}  # gunicorn's own
    assert named
    assert named <= set(SETTINGS)


def test_every_file_unit_and_metric_in_the_guide_exists():
    for target in re.findall(r"\]\(([^)#]+)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target
    for unit in re.findall(r"\bpwreset-[a-z]+@?(?:\.[a-z]+)?", GUIDE):
        name = unit if unit.endswith((".socket", ".service")) else f"{unit}.service"
        assert (DEPLOY / name).exists(), unit
    metrics = {f"pwreset_outbox_{name}" for name in GAUGES} | {
        f"pwreset_{name}_total" for name, *_ in COUNTERS.values()
    }
    for metric in re.findall(r"\bpwreset_[a-z_]+", GUIDE):
        assert metric in metrics | {"pwreset_outbox_oldest_due_seconds", "pwreset_worker_seen_timestamp_seconds"}
