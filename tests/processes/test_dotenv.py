"""`.env` in the project's root applies to every way of starting the application, and to no test."""

import os
from pathlib import Path

import pytest

import config
from tests.support.servers import copy_of_the_project, run

STARTS = [
    ("-m", "flask", "run", "--port", "0"),
    ("-m", "gunicorn", "-b", "127.0.0.1:0"),
    ("-m", "gunicorn", "-b", "127.0.0.1:0", "-c", "/dev/null", "wsgi:app"),
    ("-c", "import wsgi"),
    ("-m", "flask", "users", "events", "alice@example.com"),
]
READ = "  - OUTBOX_WORKER is 'out of the file': write thread or none."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project with a `.env` that stops every start which reads it."""
    folder = copy_of_the_project(tmp_path / "project")
    (folder / ".env").write_text("OUTBOX_WORKER='out of the file'\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("arguments", STARTS, ids=" ".join)
def test_every_way_of_starting_reads_it(project: Path, tmp_path: Path, arguments):
    done = run(tmp_path, *arguments, root=project, FLASK_SKIP_DOTENV=None)
    assert done.returncode != 0
    assert READ in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tests_own_switch_leaves_it_out(project: Path, tmp_path: Path):
    assert os.environ["FLASK_SKIP_DOTENV"] == "1"
    for arguments in (STARTS[0], STARTS[1]):
        done = run(tmp_path, *arguments, root=project)
        assert done.returncode != 0  # there are no tables, and it is local mode
        assert "OUTBOX_WORKER" not in done.stderr


def test_the_environment_goes_before_the_file(project: Path, tmp_path: Path):
    done = run(tmp_path, *STARTS[0], root=project, FLASK_SKIP_DOTENV=None, OUTBOX_WORKER="none")
    assert done.stderr == "Error: The database has no tables yet. Run: flask db upgrade\n"


def test_no_test_reads_a_developers_file(monkeypatch, tmp_path: Path):
    (tmp_path / ".env").write_text("SITE_NAME='out of the file'\n", encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    assert config.load()["SITE_NAME"] != "out of the file"
    assert config.load({})["SITE_NAME"] == "out of the file"
