"""Which spellings of a password are one password (RFC 8265, section 4.2.2)."""

import sys
import time
import unicodedata

import pytest

from pwreset.passwords import MAX_LENGTH, prepare

SPACES = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Zs"]


@pytest.mark.parametrize("space", SPACES, ids=[f"U+{ord(space):04X}" for space in SPACES])
def test_every_unicode_space_becomes_the_ascii_space(space: str) -> None:
    assert prepare(f"correct{space}horse") == "correct horse"


def test_decomposed_and_composed_letters_become_the_same() -> None:
    assert prepare("cafe\u0301") == prepare("caf\u00e9") == "caf\u00e9"


@pytest.mark.parametrize(
    "password",
    [
        "",
        "plain ascii",
        "  leading and trailing  ",
        "two  spaces",
        "UPPER and lower",
        "\ufb01reside",  # the ligature fi is another character; only NFKC would split it
        "\uff21\uff22",  # full-width letters keep their width
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0378 is not assigned",
        "tab\tand newline\n",
    ],
)
def test_nothing_else_is_changed(password: str) -> None:
    assert prepare(password) == password


def test_a_lone_surrogate_is_left_for_the_validator_to_refuse() -> None:
    assert prepare("a\ud800b") == "a\ud800b"


@pytest.mark.parametrize(
    "password", ["e\u0301\u00a0\u2000x", "\u2126 and \u212b", "a\ud800\u0301", "\u1100\u1161\u11a8"]
)
def test_preparing_twice_changes_nothing_more(password: str) -> None:
    assert prepare(prepare(password)) == prepare(password)


def test_no_code_point_decomposes_into_more_than_four() -> None:
    """The bound that lets `prepare` leave very long strings alone; a later Unicode could break it."""
    assert max(len(unicodedata.normalize("NFD", chr(code))) for code in range(sys.maxunicode + 1)) == 4


def test_the_longest_spelling_of_a_longest_password_is_still_composed() -> None:
    four = unicodedata.normalize("NFD", "\u1f82")
    assert prepare(four * MAX_LENGTH) == "\u1f82" * MAX_LENGTH


def test_a_string_too_long_to_be_a_password_stays_too_long() -> None:
    assert len(prepare("\u1f82" * MAX_LENGTH + "x")) > MAX_LENGTH
    assert len(prepare(unicodedata.normalize("NFD", "\u1f82") * MAX_LENGTH + "x")) > MAX_LENGTH


def test_hostile_combining_marks_are_prepared_quickly() -> None:
    """Composing 64,000 of them takes two seconds and more; a login form must not be made to."""
    started = time.process_time()
    prepare("a" + "\u0301\u0323" * 32_000)
    assert time.process_time() - started < 0.5
