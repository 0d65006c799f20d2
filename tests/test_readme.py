"""The README stays true: its settings, commands, links and pictures are those of the code."""

import re
from pathlib import Path

import click
import pytest

from config import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\((?!http)([^)#]+)", README)


def table_below(heading: str) -> dict[str, list[str]]:
    """Return a table's rows by the text of their first cell."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_setting_is_in_the_readme_and_no_other():
    assert list(table_below("Settings")) == list(SETTINGS)


def test_the_defaults_in_the_readme_are_those_of_the_code():
    for name, (default, _) in table_below("Settings").items():
        stated = default.partition("`")[2].partition("`")[0]
        actual = Path(SETTINGS[name].default).name if name == "INSTANCE_PATH" else SETTINGS[name].default
        if actual and "," not in default:
            assert stated == actual, name


def test_every_command_is_in_the_readme_and_no_other(app):
    def walk(group: click.Group, path: str) -> list[str]:
        return [f"{path} {name}" for name in group.commands]

    ours = {line for name in ("users", "mail", "outbox") for line in walk(app.cli.commands[name], f"flask {name}")}
    documented = {command.removesuffix(" EMAIL") for command in table_below("Commands")}
    assert documented == ours | {"flask db upgrade"}


@pytest.mark.parametrize("target", LINKS)
def test_every_link_leads_to_a_file(target):
    assert (ROOT / target).exists()


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("0*.md"))
