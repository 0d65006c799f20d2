"""docs/security.md and SECURITY.md claim nothing that is not there, and leave out no requirement and no bug."""

import ast
import re
import tokenize
from functools import cache
from pathlib import Path
from token import COMMENT

import pytest

from config import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
ATTACKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "attacks").glob("test_*.py"))
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::((?:Test\w+::)?test_\w+)`")
NAMED_TESTS = sorted(set(TEST.findall(PAGE + POLICY)))
REQUIREMENTS = re.findall(r"^\| (\d+\.\d+\.\d+) \| (\d) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
BUGS = dict(re.findall(r"^\| (CVE-\d{4}-\d+) \| .+? \| (.+) \|$", PAGE, re.MULTILINE))
CVE = re.compile(r"CVE-\d{4}-\d+")
# What stands in the place of a test, or before it.
WORDS = ("Not met: ", "Partly: ", "Does not apply: ", "Written here: ", "The operator's: ")
# OWASP ASVS 5.0.0: the level of each requirement of a section, in their order.
LEVELS = {
    "6.1": "122",
    "6.2": "111111112222",
    "6.3": "11223333",
    "6.4": "112233",
    "6.5": "22222333",
    "6.6": "2223",
    "6.7": "33",
    "6.8": "2222",
    "7.1": "222",
    "7.2": "1111",
    "7.3": "22",
    "7.4": "11222",
    "7.5": "223",
    "7.6": "22",
}
EVERY_REQUIREMENT = [
    (f"{section}.{number}", level) for section, levels in LEVELS.items() for number, level in enumerate(levels, 1)
]
AT_LEAST = {
    "CVE-2008-3681",
    "CVE-2012-4520",
    "CVE-2013-0233",
    "CVE-2013-1443",
    "CVE-2015-0219",
    "CVE-2015-2559",
    "CVE-2017-8295",
    "CVE-2017-12161",
    "CVE-2019-18818",
    "CVE-2019-19844",
    "CVE-2021-21424",
    "CVE-2021-32618",
    "CVE-2022-29933",
    "CVE-2023-7028",
    "CVE-2023-46695",
    "CVE-2023-49097",
    "CVE-2023-49438",
    "CVE-2024-6923",
    "CVE-2024-39329",
    "CVE-2024-45231",
    "CVE-2025-48432",
}


@cache
def docstrings(path: str) -> dict[str, str]:
    """Return the docstring of each test of a file by its name; "" stands for the module."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = {"": ast.get_docstring(tree) or ""}
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + one.name: ast.get_docstring(one) or "" for one in inner if isinstance(one, ast.FunctionDef)}
    return found


@cache
def comments(path: str) -> str:
    """Return a file's comments: lists of what was used in the wild name the bug beside each."""
    with tokenize.open(ROOT / path) as file:
        return " ".join(token.string for token in tokenize.generate_tokens(file.readline) if token.type == COMMENT)


def said_in(path: str) -> str:
    return " ".join([*docstrings(path).values(), comments(path)])


def rows_of(heading: str) -> list[tuple[str, str]]:
    """Return what the tables of a section ask for and what answers it."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", section(heading), re.MULTILINE)
    return [(asked, answer) for asked, answer in rows if answer not in {"tested by", "---"}]


def unanswered(rows: list[tuple[str, str]]) -> list[str]:
    return [asked for asked, answer in rows if not TEST.search(answer) and not answer.startswith(WORDS)]


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED_TESTS}))
def test_every_test_named_exists(path: str) -> None:
    assert {name for file, name in NAMED_TESTS if file == path} - docstrings(path).keys() == set()


def test_what_looks_like_a_test_is_named_in_full() -> None:
    loose = re.findall(r"test_\w+", TEST.sub("", PAGE + POLICY).replace("tests/test_docs_security.py", ""))
    assert loose == []


def test_every_requirement_of_chapters_6_and_7_has_one_row() -> None:
    rows = [(number, level) for number, level, _, _ in REQUIREMENTS if number.startswith(("6.", "7."))]
    assert rows == EVERY_REQUIREMENT


@pytest.mark.parametrize("chapter", ["3", "11", "12", "14", "16"])
def test_a_chapter_of_which_parts_apply_has_rows_in_order(chapter: str) -> None:
    rows = [tuple(map(int, number.split("."))) for number, *_ in REQUIREMENTS if number.startswith(f"{chapter}.")]
    assert rows
    assert rows == sorted(set(rows))


def test_every_requirement_is_held_by_a_test_or_says_why_not() -> None:
    assert unanswered([(number, answer) for number, _, _, answer in REQUIREMENTS]) == []


@pytest.mark.parametrize(
    ("heading", "lines"),
    [("OWASP Forgot Password Cheat Sheet", 45), ("NIST SP 800-63B-4: passwords and what goes with them", 30)],
)
def test_every_line_of_the_other_rules_is_held_by_a_test_or_says_why_not(heading: str, lines: int) -> None:
    rows = rows_of(heading)
    assert len(rows) == lines
    assert unanswered(rows) == []


def test_what_is_not_met_is_collected_at_the_top() -> None:
    short = {number for number, _, _, answer in REQUIREMENTS if answer.startswith(("Not met", "Partly"))}
    assert set(re.findall(r"\b\d+\.\d+\.\d+\b", section("What is not met"))) == short


def test_every_bug_that_must_be_replayed_has_a_row() -> None:
    assert AT_LEAST - BUGS.keys() == set()


@pytest.mark.parametrize("path", ATTACKS)
def test_every_bug_and_requirement_that_an_attack_names_has_a_row(path: str) -> None:
    said, chapters = said_in(path), {number.partition(".")[0] for number, *_ in REQUIREMENTS}
    assert set(CVE.findall(said)) - BUGS.keys() == set()
    named = re.findall(r"\d+\.\d+\.\d+", " ".join(re.findall(r"ASVS [\d., ]+", said)))
    ours = {number for number in named if number.partition(".")[0] in chapters}
    assert ours - {number for number, *_ in REQUIREMENTS} == set()


def test_every_bug_of_the_page_is_replayed_by_a_test_of_its_row_that_names_it() -> None:
    def is_replayed(bug: str) -> bool:
        named = [(path, name) for path, name in TEST.findall(BUGS.get(bug, "")) if path in ATTACKS]
        return any(bug in docstrings(path).get(name, "") + comments(path) for path, name in named)

    assert [bug for bug in sorted(set(CVE.findall(PAGE))) if not is_replayed(bug)] == []


@pytest.mark.parametrize("path", ATTACKS)
def test_every_file_of_attacks_is_mentioned(path: str) -> None:
    assert path in {file for file, _ in NAMED_TESTS}


def test_every_limit_is_written_down_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `(\S+)` \|", PAGE, re.MULTILINE))
    limits = [name for name in SETTINGS if re.match("RATELIMIT_(?!ENABLED)|LOGIN_|EMAIL_(INTERVAL|HOURLY)", name)]
    assert rows == {name: SETTINGS[name].default for name in limits}


@pytest.mark.parametrize(("file", "text"), [("docs/security.md", PAGE), ("SECURITY.md", POLICY)])
def test_every_link_leads_to_a_file(file: str, text: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert [target for target in targets if not (ROOT / file).parent.joinpath(target).exists()] == []


def test_the_policy_is_short() -> None:
    assert len(POLICY.splitlines()) < 80
