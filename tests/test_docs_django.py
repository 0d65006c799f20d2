"""docs/django.md names tests, templates and options that exist, and every one of Django's."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from config import SETTINGS
from pwreset.password_reset import views

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "django.md").read_text(encoding="utf-8")
NAMED_TESTS = sorted(set(re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", PAGE)))
OPTIONS = re.findall(r"^\| (\w+View) \| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE)
COMMON = {"template_name", "title", "extra_context"}
MAIL = {"email_template_name", "subject_template_name", "html_email_template_name", "from_email", "extra_email_context"}
FORM = {"form_class", "success_url", "token_generator"}
DJANGOS_OPTIONS = {  # Django 5.2, django/contrib/auth/views.py
    "PasswordResetView": COMMON | FORM | MAIL,
    "PasswordResetDoneView": COMMON,
    "PasswordResetConfirmView": COMMON | FORM | {"post_reset_login", "post_reset_login_backend", "reset_url_token"},
    "PasswordResetCompleteView": COMMON,
}
DJANGOS_CASES = {  # how many test methods each has in Django 5.2.19, tests/auth_tests
    "TokenGeneratorTest": 11,
    "PasswordResetTest": 31,
    "PasswordResetFormTest": 17,
    "SetPasswordFormTest": 8,
    "the validators": 28,
}
OURS_ALONE = {"dead_title", "invite_title"}  # options that Django does not have


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED_TESTS}))
def test_every_test_named_exists(path: str) -> None:
    named = {name for file, name in NAMED_TESTS if file == path}
    assert named - names_in(path) == set()


@pytest.mark.parametrize("django_class", DJANGOS_CASES)
def test_every_case_of_django_has_a_test_or_a_reason(django_class: str) -> None:
    section = re.search(rf"(?s)^### `\w+\.py`: {django_class}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE)
    assert section is not None
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", section[1], re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows) == DJANGOS_CASES[django_class]
    assert [name for name, ours in rows if "::test_" not in ours and not ours.startswith("None: ")] == []


@pytest.mark.parametrize("view", DJANGOS_OPTIONS)
def test_every_option_of_django_is_described(view: str) -> None:
    assert {option for name, option, _ in OPTIONS if name == view} == DJANGOS_OPTIONS[view]


@pytest.mark.parametrize(("view", "option", "ours"), OPTIONS)
def test_an_option_called_the_same_is_taken_and_any_other_is_refused(view: str, option: str, ours: str) -> None:
    def configure() -> Any:
        return getattr(views, view).as_view("page", **{option: None})

    if ours == "the same":
        assert callable(configure())
    else:
        with pytest.raises(TypeError, match=option):
            configure()


@pytest.mark.parametrize("view", DJANGOS_OPTIONS)
def test_every_option_of_ours_is_djangos_or_described(view: str) -> None:
    own = {name for name, value in vars(getattr(views, view)).items() if isinstance(value, str | bool | type)}
    own = {name for name in own if not name.startswith("_")}
    assert own - DJANGOS_OPTIONS[view] - OURS_ALONE == set()
    assert all(f"`{name}`" in PAGE for name in own)


def test_every_template_named_exists() -> None:
    named = re.findall(r"`((?:users|mail)/[\w/]+(?:\.\w+|/))`", PAGE)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "templates" / name).exists()] == []


def test_every_setting_of_ours_that_is_named_exists() -> None:
    section = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .*\|$", section, re.MULTILINE)[2:]
    named = {name for django, ours in rows for name in re.findall(r"`([A-Z_]+)`", ours)}
    named |= {name for django, ours in rows if "the same" in ours for name in re.findall(r"`([A-Z_]+)`", django)}
    assert len(named) > 10
    assert named - set(SETTINGS) == set()


def test_every_title_named_is_shown() -> None:
    titles = re.search(r"\| (\"Password reset\".*?) \| the same titles \|", PAGE)
    assert titles is not None
    shown = {getattr(views, view).title for view in DJANGOS_OPTIONS} | {views.PasswordResetConfirmView.dead_title}
    assert set(re.findall(r'"([^"]+)"', titles[1])) == shown
