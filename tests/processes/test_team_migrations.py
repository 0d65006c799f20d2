"""A team's own migrations: what `flask db migrate` writes, and what they keep when they run over full tables."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config import ROOT
from tests.support.databases import Rows, SQLite, on_sqlite
from tests.support.instance import Instance
from tests.support.servers import copy_of_the_project

USERNAME = "username: Mapped[str | None] = mapped_column(String(80), unique=True)"
NICKNAME = "nickname: Mapped[str | None] = mapped_column(String(80))"
SEEN_AT = "seen_at: Mapped[datetime | None] = mapped_column(UTCDateTime)"
WITHOUT_DEFAULT = "team: Mapped[str] = mapped_column(String(80))"
NOW = "'2030-01-01 12:00:00.000000'"
ROWS = {
    "users": "(id, email, email_key, password_hash, stamp, is_active, created_at) VALUES"
    f" (1, 'a@example.com', 'a@example.com', '!', 's', true, {NOW}),"
    f" (2, 'b@example.com', 'b@example.com', '!', 's', true, {NOW})",
    "security_events": f"(user_id, kind, created_at) VALUES (1, 'logged_in', {NOW}), (NULL, 'merged', {NOW})",
    "outbox": "(message_id, kind, address, email_key, options, created_at, leased, attempts)"
    f" VALUES ('1', 'register', 'a@example.com', 'a@example.com', '{{}}', {NOW}, false, 0)",
    "counters": f"(name, kind, value, updated_at) VALUES ('emails', 'sent', 5000000000, {NOW})",
    "login_failures": f"(account, network, failures, failed_at) VALUES ('x', '192.0.2.0/24', 3, {NOW})",
    "ended_sessions": f"(id, ended_at) VALUES ('x', {NOW})",
}
NEVER_REUSED = {"users", "outbox", "security_events"}


class Team:
    """A copy of the project that a team changes, on an instance whose tables are full."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.instance, self.root = instance, copy_of_the_project(folder)
        self.versions = self.root / "migrations/versions"
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for table, values in ROWS.items():
            instance.query(f"INSERT INTO {table} {values}")

    def flask(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.instance.run("-m", "flask", *arguments, root=self.root)
        assert done.returncode == status, done.stderr
        return done

    def add_column(self, line: str) -> None:
        """Add a line to the model of an account."""
        models = self.root / "pwreset/models.py"
        text = models.read_text(encoding="utf-8")
        after = "    is_active: Mapped[bool] = mapped_column(default=True)\n"
        assert text.count(after) == 1
        models.write_text(text.replace(after, f"{after}    {line}\n"), encoding="utf-8")

    def migrate(self, line: str, name: str) -> None:
        self.add_column(line)
        self.flask("db", "migrate", "-m", name)

    def write(self, upgrade: str) -> None:
        """Write a migration by hand."""
        head = '"""Written by hand."""\nimport sqlalchemy as sa\nfrom alembic import op\n'
        revision = 'revision, down_revision = "0005", "0004"\n'
        functions = f"def upgrade():\n    {upgrade}\ndef downgrade(): pass\n"
        (self.versions / "0005_by_hand.py").write_text(head + revision + functions, encoding="utf-8")

    def newest(self) -> Path:
        return max(self.versions.glob("*.py"))

    def contents(self) -> dict[str, Rows]:
        """Return the rows of every table, in the columns that are ours."""
        columns = {table: values.partition(")")[0].strip("(") for table, values in ROWS.items()}
        return {
            table: sorted(self.instance.query(f"SELECT {names} FROM {table}"), key=str)  # noqa: S608
            for table, names in columns.items()
        }


@pytest.fixture
def team(instance: Instance, tmp_path: Path) -> Team:
    folder = tmp_path / "project"
    folder.mkdir()
    return Team(instance, folder)


def assert_rows_still_refer_to_accounts(instance: Instance) -> None:
    if isinstance(instance.database, SQLite):
        assert [row[2:] for row in instance.query("PRAGMA foreign_key_list(security_events)")] == [
            ("users", "user_id", "id", "NO ACTION", "CASCADE", "NONE")
        ]
    else:
        instance.query("DELETE FROM users WHERE id = 1")
        assert instance.query("SELECT kind FROM security_events") == [("merged",)]


def assert_ids_are_never_reused(instance: Instance) -> None:
    found = instance.query("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
    assert {name for (name,) in found} == NEVER_REUSED


# --- Nothing is lost


@pytest.mark.parametrize("columns", [[USERNAME], [NICKNAME], [USERNAME, NICKNAME]], ids=["unique", "plain", "both"])
def test_a_new_column_keeps_every_row_up_and_down(team: Team, columns: list[str]) -> None:
    before = team.contents()
    assert all(before.values())
    for number, column in enumerate(columns):
        team.migrate(column, f"change {number}")
        team.flask("db", "upgrade")
    for arguments in (("downgrade", "0004"), ("upgrade",)):
        assert team.contents() == before
        team.flask("db", *arguments)
        assert team.contents() == before
    assert "No new upgrade operations detected." in team.flask("db", "check").stdout
    assert_rows_still_refer_to_accounts(team.instance)
    if isinstance(team.instance.database, SQLite):
        assert_ids_are_never_reused(team.instance)


@on_sqlite
def test_an_id_of_a_deleted_account_stays_used_when_its_table_is_recreated(team: Team) -> None:
    team.instance.query("DELETE FROM users WHERE id = 2")
    team.instance.query("DELETE FROM outbox")
    team.migrate(USERNAME, "username")
    team.flask("db", "upgrade")
    team.flask("users", "invite", "c@example.com")
    team.flask("outbox", "drain")
    assert team.instance.query("SELECT id FROM users") == [(1,), (3,)]


@on_sqlite
def test_a_migration_that_would_leave_rows_without_the_row_they_refer_to_changes_nothing(team: Team) -> None:
    before = team.contents()
    team.write("op.add_column('users', sa.Column('extra', sa.Integer()))\n    op.execute('DELETE FROM users')")
    done = team.flask("db", "upgrade", status=1)
    assert done.stderr == (
        "Error: The migrations would leave rows in security_events that refer to missing rows of users."
        " Nothing was changed.\n"
    )
    assert done.stdout == ""
    assert team.contents() == before
    assert "extra" not in str(team.instance.query("SELECT sql FROM sqlite_master"))
    assert team.instance.query("SELECT version_num FROM alembic_version") == [("0004",)]


@on_sqlite
def test_rows_that_referred_to_nothing_before_do_not_stop_an_upgrade(team: Team) -> None:
    team.instance.query("INSERT INTO security_events (user_id, kind, created_at) VALUES (99, 'merged', '2030-01-01')")
    team.migrate(USERNAME, "username")
    team.flask("db", "upgrade")
    assert len(team.contents()["security_events"]) == 3


# --- What is written and printed


def test_a_migration_continues_the_numbers_passes_the_linter_and_prints_a_line(team: Team) -> None:
    for line in (SEEN_AT, USERNAME):
        team.add_column(line)
    team.flask("db", "migrate", "-m", "username and when seen")
    file = team.versions / "0005_username_and_when_seen.py"
    assert file == team.newest()
    assert file.read_text(encoding="utf-8").startswith('"""Username and when seen."""\n')
    assert "pwreset" not in file.read_text(encoding="utf-8")
    for check in (("check",), ("format", "--check")):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, "migrations"], cwd=team.root, check=False)
        assert done.returncode == 0
    assert team.flask("db", "upgrade").stdout == "Upgraded to 0005: Username and when seen.\n"
    assert team.flask("db", "upgrade").stdout == ""
    assert team.flask("db", "downgrade").stdout == "Downgraded from 0005: Username and when seen.\n"


def test_without_changes_no_migration_is_written(team: Team) -> None:
    assert team.flask("db", "migrate", "-m", "nothing").stdout == "No changes to the tables.\n"
    assert team.newest().name.startswith("0004")


def test_a_mistake_in_a_migration_is_reported_as_one_with_its_file_and_keeps_everything(team: Team) -> None:
    before = team.contents()
    team.migrate(WITHOUT_DEFAULT, "team")
    done = team.flask("db", "upgrade", status=1)
    assert re.fullmatch(r"Error: 0005_team\.py failed at line \d+ and was rolled back: .*\n", done.stderr)
    assert re.search("NOT NULL|null values", done.stderr)
    assert done.stdout == ""
    assert team.contents() == before
    assert team.instance.query("SELECT version_num FROM alembic_version") == [("0004",)]


# --- Two at a time


def test_of_two_upgrades_at_a_time_the_second_waits_and_finds_nothing_to_do(team: Team) -> None:
    team.write("__import__('time').sleep(7)")  # longer than anybody else waits for a lock
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(team.flask, "db", "upgrade") for _ in range(2)]
        printed = sorted(run.result().stdout for run in runs)
    assert printed == ["", "Upgraded to 0005: Written by hand.\n"]


def test_of_two_first_upgrades_at_a_time_one_makes_the_tables(empty_instance: Instance) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(empty_instance.run, "-m", "flask", "db", "upgrade") for _ in range(2)]
        done = [run.result() for run in runs]
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 2
    assert sorted(one.stdout.count("Upgraded to") for one in done) == [0, 4]
