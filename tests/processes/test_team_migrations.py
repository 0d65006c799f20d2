"""A team's own migrations: what `flask db migrate` writes, and what they keep when they run over full tables."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from config import ROOT
from tests.support.databases import Rows, SQLite, on_sqlite
from tests.support.instance import Instance
from tests.support.servers import copy_of_the_project

USERNAME = "new_username: Mapped[str | None] = mapped_column(String(80), unique=True)"
NICKNAME = "new_nickname: Mapped[str | None] = mapped_column(String(80))"
SEEN_AT = "new_seen_at: Mapped[datetime | None] = mapped_column(UTCDateTime)"
WITHOUT_DEFAULT = "new_team: Mapped[str] = mapped_column(String(80))"
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
REVISIONS = [script.revision for script in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()]
HEAD = REVISIONS[0]
NEXT = f"{max(int(revision) for revision in REVISIONS if revision.isdecimal()) + 1:04}"
NEVER_REUSED = {"users", "outbox", "security_events"}
# A package with a table and a page. Its function has no docstring, a name that says nothing and more than 25 lines, and
# its modules import each other.
PACKAGE = (
    """
from flask import Blueprint
bp = Blueprint("new_pages", __name__)
from pwreset.new_pages import models
@bp.get("/new-pages/")
def handle_data():
    number = 0
"""
    + 30 * "    number += 1\n"
    + "    return str(number)\n"
)
PACKAGES_MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column
from pwreset import new_pages
from pwreset.extensions import db
class NewPage(db.Model):
    __tablename__ = "new_pages"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
"""


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

    def add_package(self) -> None:
        """Add a package, its blueprint, a test that imports another test, and a page that links to another site."""
        for path, text in {
            "pwreset/new_pages/__init__.py": PACKAGE,
            "pwreset/new_pages/models.py": PACKAGES_MODELS,
            "tests/new_pages/__init__.py": "",
            "tests/new_pages/test_pages.py": "from tests.new_pages import test_others\n",
            "tests/new_pages/test_others.py": "",
            "templates/new_pages/page.html": '<a href="https://example.com/">Example</a>',
        }.items():
            (self.root / path).parent.mkdir(exist_ok=True)
            (self.root / path).write_text(text, encoding="utf-8")
        application = self.root / "pwreset/__init__.py"
        text = application.read_text(encoding="utf-8")
        for before, after in (
            ("import commands, ", "import new_pages, commands, "),
            ("in (users, ", "in (new_pages, users, "),
        ):
            assert text.count(before) == 1
            text = text.replace(before, after)
        application.write_text(text, encoding="utf-8")

    def migrate(self, line: str, name: str) -> None:
        self.add_column(line)
        self.flask("db", "migrate", "-m", name)

    def write(self, upgrade: str) -> None:
        """Write a migration by hand."""
        head = '"""Written by hand."""\nimport sqlalchemy as sa\nfrom alembic import op\n'
        revision = f'revision, down_revision = "{NEXT}", "{HEAD}"\n'
        functions = f"def upgrade():\n    {upgrade}\ndef downgrade(): pass\n"
        (self.versions / f"{NEXT}_by_hand.py").write_text(head + revision + functions, encoding="utf-8")

    def files(self) -> set[Path]:
        return set(self.versions.glob("*.py"))

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
    assert {name for (name,) in found} & ROWS.keys() == NEVER_REUSED


# --- Nothing is lost


@pytest.mark.parametrize("columns", [[USERNAME], [NICKNAME], [USERNAME, NICKNAME]], ids=["unique", "plain", "both"])
def test_a_new_column_keeps_every_row_up_and_down(team: Team, columns: list[str]) -> None:
    before = team.contents()
    assert all(before.values())
    for number, column in enumerate(columns):
        team.migrate(column, f"change {number}")
        team.flask("db", "upgrade")
    for arguments in (("downgrade", HEAD), ("upgrade",)):
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
    team.write("op.add_column('users', sa.Column('new_extra', sa.Integer()))\n    op.execute('DELETE FROM users')")
    done = team.flask("db", "upgrade", status=1)
    assert done.stderr == (
        "Error: The migrations would leave rows in security_events that refer to missing rows of users."
        " Nothing was changed.\n"
    )
    assert done.stdout == ""
    assert team.contents() == before
    assert "new_extra" not in str(team.instance.query("SELECT sql FROM sqlite_master"))
    assert team.instance.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


@on_sqlite
def test_rows_that_referred_to_nothing_before_do_not_stop_an_upgrade(team: Team) -> None:
    team.instance.query("INSERT INTO security_events (user_id, kind, created_at) VALUES (99, 'merged', '2030-01-01')")
    team.migrate(USERNAME, "username")
    team.flask("db", "upgrade")
    assert len(team.contents()["security_events"]) == 3


# --- What is written and printed


def test_a_migration_continues_the_numbers_passes_the_linter_and_prints_a_line(team: Team) -> None:
    before = team.files()
    for line in (SEEN_AT, USERNAME):
        team.add_column(line)
    team.flask("db", "migrate", "-m", "username and when seen")
    file = team.versions / f"{NEXT}_username_and_when_seen.py"
    assert team.files() - before == {file}
    assert file.read_text(encoding="utf-8").startswith('"""Username and when seen."""\n')
    assert "pwreset" not in file.read_text(encoding="utf-8")
    for check in (("check",), ("format", "--check")):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, "migrations"], cwd=team.root, check=False)
        assert done.returncode == 0
    assert team.flask("db", "upgrade").stdout == f"Upgraded to {NEXT}: Username and when seen.\n"
    assert team.flask("db", "upgrade").stdout == ""
    assert team.flask("db", "downgrade").stdout == f"Downgraded from {NEXT}: Username and when seen.\n"


def test_without_changes_no_migration_is_written(team: Team) -> None:
    before = team.files()
    assert team.flask("db", "migrate", "-m", "nothing").stdout == "No changes to the tables.\n"
    assert team.files() == before


def test_a_mistake_in_a_migration_is_reported_as_one_with_its_file_and_keeps_everything(team: Team) -> None:
    before = team.contents()
    team.migrate(WITHOUT_DEFAULT, "team")
    done = team.flask("db", "upgrade", status=1)
    assert re.fullmatch(rf"Error: {NEXT}_team\.py failed at line \d+ and was rolled back: .*\n", done.stderr)
    assert re.search("NOT NULL|null values", done.stderr)
    assert done.stdout == ""
    assert team.contents() == before
    assert team.instance.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


# --- Two at a time


def test_of_two_upgrades_at_a_time_the_second_waits_and_finds_nothing_to_do(team: Team) -> None:
    team.write("__import__('time').sleep(7)")  # longer than anybody else waits for a lock
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(team.flask, "db", "upgrade") for _ in range(2)]
        printed = sorted(run.result().stdout for run in runs)
    assert printed == ["", f"Upgraded to {NEXT}: Written by hand.\n"]


def test_of_two_first_upgrades_at_a_time_one_makes_the_tables(empty_instance: Instance) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(empty_instance.run, "-m", "flask", "db", "upgrade") for _ in range(2)]
        done = [run.result() for run in runs]
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 2
    assert sorted(one.stdout.count("Upgraded to") for one in done) == [0, len(REVISIONS)]


# --- Our tests in a team's copy


@on_sqlite
def test_our_tests_do_not_object_to_a_column_a_table_and_a_package_of_a_team(team: Team) -> None:
    for name in ("tests", "benchmarks"):
        shutil.copytree(ROOT / name, team.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("requirements*.txt"):
        shutil.copy(path, team.root)
    team.add_package()
    team.migrate(USERNAME, "username and pages")
    assert "create_table" in (team.versions / f"{NEXT}_username_and_pages.py").read_text(encoding="utf-8")
    options = ("-p", "no:cacheprovider", "-q", "-k", "not postgresql")
    tests = ("tests/test_architecture.py", "tests/test_migrations.py")
    done = team.instance.run("-m", "pytest", *options, *tests, root=team.root)
    assert done.returncode == 0, done.stdout
