"""The pages match the code: settings, commands, metrics, links, paths, the list of pages, and the decision records."""

import re
from functools import cache
from pathlib import Path

import click
import pytest

from config import SETTINGS
from pwreset.outbox.outcomes import EFFECTS
from tests.support.databases import on_sqlite

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("0*.md"))
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PROSE = [page for page in PAGES if not page.startswith("docs/evidence/")]
WRITTEN_NOW = [page for page in PAGES if page != "CHANGELOG.md"]  # the changelog names what is gone
OLD_WORDS = re.compile(
    r"\b((?:an?|the|to|no|all) mail(?! server| program| scanner| connection)"
    r"|mails|mailed|whoever|told|reckoned|mends?|useless|whole|held|said)\b",
    re.IGNORECASE,
)


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def anchors_of(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_of(page: str, header: str) -> dict[str, list[str]]:
    """Return the rows of the table with this header by the text of their first cell, without backticks."""
    section = text_of(page).partition(f"\n{header}\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()[1:]]
    return {row[0].strip("`"): row[1:] for row in rows}


# --- the code's settings, commands and numbers


def test_every_setting_has_a_row_and_no_other():
    assert list(table_of("docs/settings.md", "| name | default | meaning |")) == list(SETTINGS)


def test_the_defaults_of_the_settings_are_those_of_the_code():
    for name, (default, _) in table_of("docs/settings.md", "| name | default | meaning |").items():
        stated = default.partition("`")[2].partition("`")[0]
        actual = Path(SETTINGS[name].default).name if name == "INSTANCE_PATH" else SETTINGS[name].default
        if actual and "," not in default:
            assert stated == actual, name


@on_sqlite
def test_every_command_has_a_row_and_no_other(app):
    def walk(group: click.Group, path: str) -> list[str]:
        return [f"{path} {name}" for name in group.commands]

    ours = {line for name in ("users", "mail", "outbox") for line in walk(app.cli.commands[name], f"flask {name}")}
    rows = table_of("docs/commands.md", "| command | what it does |")
    assert {command.removesuffix(" EMAIL") for command in rows} == ours | {"flask db upgrade"}


@on_sqlite
def test_every_option_of_a_command_that_a_page_names_exists(app):
    options = {
        option
        for name in ("users", "mail", "outbox")
        for command in app.cli.commands[name].commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    named = set(re.findall(r"`(--[a-z-]+)", text_of("docs/commands.md")))
    assert named
    assert named <= options


@on_sqlite
def test_every_metric_has_a_row_and_no_other(app):
    families = re.findall(r"^# TYPE (\w+)", app.test_client().get("/metrics").text, re.MULTILINE)
    assert set(table_of("docs/monitoring.md", "| metric | meaning |")) == set(families)


def test_the_commands_without_make_are_those_of_the_makefile():
    recipe = re.search(r"^test: .*\n\t@\$\(BIN\)/(.+?) \$\(TESTS\)$", text_of("Makefile"), re.MULTILINE)
    assert recipe is not None
    assert f"\n.venv/bin/{recipe[1]} tests\n" in text_of("docs/commands.md")


def test_every_outcome_of_an_attempt_is_in_its_decision_record():
    header = "| outcome | when | row | counter | event | slot | needs the lease |"
    rows = table_of("docs/decisions/0020-one-outcome.md", header)
    assert list(rows) == [result.value for result in EFFECTS]
    for result, effect in EFFECTS.items():
        _, row, counter, event, slot, needs_lease = rows[result.value]
        assert (row == "deleted") == (effect.new_values is None)
        assert (counter == "none") == (effect.counter is None)
        assert (event == "none") == (effect.event is None)
        assert (slot == "kept") == effect.keeps_slot
        assert (needs_lease == "yes") == effect.needs_lease


# --- links and names


@pytest.mark.parametrize("doc", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(doc: str):
    dead = []
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", text_of(doc)):
        path = (ROOT / doc).parent / target if target else ROOT / doc
        known = not anchor or (path.suffix == ".md" and path.exists() and anchor in anchors_of(_name(path)))
        if not path.exists() or not known:
            dead.append(f"{target}#{anchor}")
    assert dead == []


def _name(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix()


@pytest.mark.parametrize("doc", WRITTEN_NOW)
def test_every_path_that_a_page_names_exists(doc: str):
    named = re.findall(r"`((?:pwreset|docs|tests|templates|migrations|deploy|benchmarks)/[\w./@-]*)`", text_of(doc))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("doc", PAGES)
def test_every_make_target_that_a_page_names_exists(doc: str):
    targets = set(re.findall(r"^([a-z]+):.* ## ", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text_of(doc))) <= targets


def test_every_page_of_docs_is_listed_once_with_a_sentence():
    listed = re.findall(r"^- \[[^]]+\]\(([^)]+)\) .+\.$", text_of("docs/README.md"), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path not in DECISIONS}
    assert sorted(listed) == sorted(pages - {"README.md"})


# --- words


@pytest.mark.parametrize("doc", PROSE)
def test_a_page_uses_the_words_of_the_field(doc: str):
    prose = re.sub(r"```.*?```|`[^`]*`|\"[^\"]*\"|“[^”]*”|\]\([^)]*\)", "", text_of(doc), flags=re.DOTALL)
    assert [found[0] for found in OLD_WORDS.finditer(prose)] == []


# --- decision records


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_record_is_dated_and_complete(path: Path):
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {path.name[:4]}: .+\n\nDate: \d{{4}}-\d\d-\d\d", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Status", "Context", "Decision", "Consequences"]
    status = text.partition("## Status\n\n")[2].partition("\n\n")[0]
    assert re.match(r"(Accepted|Superseded by \[\d{4}\]\(\d{4}-[\w-]+\.md\))\.", status)


def test_every_decision_record_is_listed_with_its_title_date_and_status():
    rows = re.findall(
        r"^\| \[(.+)\]\((.+)\) \| ([\d-]+) \| (accepted|superseded) \|$",
        text_of("docs/decisions/README.md"),
        re.MULTILINE,
    )
    assert len(rows) == len(DECISIONS)
    for (title, name, date, status), path in zip(rows, DECISIONS, strict=True):
        text = path.read_text(encoding="utf-8")
        assert name == path.name
        assert text.startswith(f"# {title}\n\nDate: {date}")
        assert f"## Status\n\n{status.capitalize()}" in text
