"""The backup and restore commands of the deployment guide keep all data."""

import os
import re
import shutil
import subprocess

import pytest
from sqlalchemy import make_url

from tests.support.app import MakeApp, Visitor, add_user
from tests.support.databases import PostgreSQL
from tests.support.instance import Instance
from tests.support.passwords import PASSWORD
from tests.support.servers import ROOT

GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SECTION = GUIDE[GUIDE.index("## Back up and restore") : GUIDE.index("## Another secret key")]
# By engine: what is in the lines that are for it, and the programs they run.
LINES = {"sqlite": ("pwreset.db", ["sqlite3"]), "postgresql": ("pwreset.dump", ["pg_dump", "pg_restore"])}


def commands(engine: str, instance: Instance) -> list[str]:
    """Return the lines of the guide, the backup's first, as they are on the test's machine."""
    mark, programs = LINES[engine]
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    name = instance.database.name if isinstance(instance.database, PostgreSQL) else "pwreset"
    places = {
        "/var/lib/pwreset": str(instance.folder),
        "/var/backups": str(instance.folder / "backups"),
        "runuser -u postgres -- ": "",
        "-o pwreset -g pwreset ": "",
        "--format=custom pwreset": f"--format=custom {name}",
        "--dbname=pwreset": f"--dbname={name}",
    }
    blocks = "\n".join(re.findall(r"```\n(.*?)```", SECTION, re.DOTALL))
    for there, here in places.items():
        blocks = blocks.replace(there, here)
    return [line for line in blocks.splitlines() if mark in line]


def run(command: str) -> None:
    server = make_url(os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres"))
    where = {"PGHOST": server.host, "PGPORT": server.port or 5432, "PGUSER": server.username}
    where |= {"PGPASSWORD": server.password} if server.password else {}
    there = {**os.environ, **{name: str(value) for name, value in where.items()}}
    done = subprocess.run(["sh", "-ec", command], env=there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_what_was_there_at_the_backup_is_there_after_the_restore(make_app: MakeApp, instance: Instance, engine: str):
    app = make_app()
    add_user(app, "alice@example.com", PASSWORD)
    Visitor(app).request_reset()
    backups = instance.folder / "backups"
    backups.mkdir()
    backup, *restore = commands(engine, instance)
    assert len(restore) == (2 if engine == "sqlite" else 1)
    run(backup)
    assert [path.stat().st_mode & 0o077 for path in backups.iterdir()] == [0]  # for nobody but root
    instance.query("DELETE FROM users")
    add_user(app, "mallory@example.com", PASSWORD)
    for command in restore:
        run(command)
    done = instance.run("-m", "flask", "db", "upgrade")
    assert done.returncode == 0, done.stderr
    assert instance.query("SELECT email FROM users") == [("alice@example.com",)]
    assert instance.waiting() == 1
    after = make_app()
    assert Visitor(after).log_in().headers["Location"] == "/account/"
