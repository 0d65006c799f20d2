"""The README is short, and its commands, settings, map and diagram match the code."""

import re
from pathlib import Path

import pytest

from config import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MAP = re.findall(r"^\| `([\w./]+)` \| .+ \|$", README, re.MULTILINE)
DIAGRAMS = re.findall(r"```mermaid\n(.*?)```", README, re.DOTALL)


def test_the_readme_has_fewer_than_900_words():
    assert len(README.split()) < 900


def test_the_two_commands_are_make_run_and_make_test():
    commands = README.partition("## Run it\n")[2].partition("```\n")[2].partition("```")[0]
    assert commands.split("\n") == ["make run", "make test", ""]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)(?: PORT=\d+)?[`\n]", README))))
def test_every_make_target_in_the_readme_exists(target):
    assert re.search(rf"^{target}:.* ## ", MAKEFILE, re.MULTILINE)


def test_every_setting_in_the_readme_exists():
    named = set(re.findall(r"\b([A-Z]+_[A-Z_]+)\b", README))
    assert named
    assert named <= set(SETTINGS)


def test_the_map_names_packages_and_modules_that_exist_each_once():
    # It may lack what a team adds.
    assert len(MAP) == len(set(MAP)) >= 20
    assert [name for name in MAP if not (ROOT / "pwreset" / name).exists()] == []


def test_the_one_diagram_shows_every_part_of_a_reset():
    (diagram,) = DIAGRAMS
    for part in ("browser[", "web[", "outbox[", "worker[", "account[", "smtp["):
        assert part in diagram
