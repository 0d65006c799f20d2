"""Which spellings of a password are equal, how passwords are stored and checked, and that a check costs one hash."""

import re
import sys
import time
import unicodedata
from typing import Literal

import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import VerifyMismatchError

from pwreset.passwords import hashing
from pwreset.passwords.hashing import (
    MAX_LENGTH,
    check_password,
    is_password_usable,
    make_password,
    password_needs_rehash,
    prepare,
)

PASSWORD = "l\u00e8tmein to the garden"
MALFORMED = [
    "",
    "letmein",
    "$",
    "$argon2id$",
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
    "$argon2id$v=19$m=19456,t=2,p=1$not base64$not base64",
    "$argon2id$v=19$m=0,t=0,p=0$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "$argon2id$v=19$m=nineteen,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "$argon2id\u00e9$v=19",
    "\ud800",
    "\x00$argon2id",
    "pbkdf2_sha256$1000000$saltsalt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "$2b$12$abcdefghijklmnopqrstuuZbUvWgXyZ01234567890123456789012",
]
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


class CountingHasher(PasswordHasher):
    """argon2, counting how often its work was asked for with parameters it accepts."""

    def __init__(self, *, time_cost: int = 2, memory_cost: int = 19456, parallelism: int = 1) -> None:
        super().__init__(time_cost=time_cost, memory_cost=memory_cost, parallelism=parallelism)
        self.hashes = 0
        self.verified: list[str] = []

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        """Count, then hash."""
        self.hashes += 1
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 (as in argon2)
        """Count what was worked on, a match or not, but not what argon2 refused to read."""
        try:
            matched = super().verify(hash, password)
        except VerifyMismatchError:
            self.verified.append(str(hash))
            raise
        self.verified.append(str(hash))
        return matched


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingHasher:
    hasher = CountingHasher()
    monkeypatch.setattr(hashing, "hasher", hasher)
    return hasher


def test_a_password_checks_against_its_hash_and_no_other_does() -> None:
    encoded = make_password(PASSWORD)
    assert is_password_usable(encoded)
    assert check_password(PASSWORD, encoded)
    assert not check_password(PASSWORD + "z", encoded)
    assert not check_password(PASSWORD.upper(), encoded)


def test_hashes_are_argon2id_with_owasps_parameters() -> None:
    encoded = make_password(PASSWORD)
    assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    parameters = extract_parameters(encoded)
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)


def test_the_same_password_never_gets_the_same_hash() -> None:
    assert make_password(PASSWORD) != make_password(PASSWORD)


def test_a_blank_password_checks_only_against_its_own_hash() -> None:
    """Refusing it is the validators' work; hashing must not confuse it with having none."""
    encoded = make_password("")
    assert is_password_usable(encoded)
    assert check_password("", encoded)
    assert not check_password(" ", encoded)


def test_composed_and_decomposed_spellings_check_equal() -> None:
    composed, decomposed = (unicodedata.normalize(form, PASSWORD) for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert check_password(decomposed, make_password(composed))
    assert check_password(composed, make_password(decomposed))


def test_a_no_break_space_checks_as_a_space() -> None:
    assert check_password("correct\u00a0horse", make_password("correct horse"))
    assert check_password("correct horse", make_password("correct\u3000horse"))


def test_leading_and_trailing_spaces_belong_to_the_password() -> None:
    encoded = make_password(" correct horse ")
    assert check_password(" correct horse ", encoded)
    assert not check_password("correct horse", encoded)


def test_every_character_of_a_long_password_counts() -> None:
    """Where bcrypt would stop at 72 bytes."""
    encoded = make_password("x" * MAX_LENGTH)
    assert check_password("x" * MAX_LENGTH, encoded)
    assert not check_password("x" * (MAX_LENGTH - 1) + "y", encoded)
    assert not check_password("x" * 72, encoded)


def test_emoji_and_control_characters_can_be_hashed() -> None:
    for password in ("\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "nul\x00in the middle"):
        assert check_password(password, make_password(password))
    assert not check_password("nul\x00at the end", make_password("nul"))


@pytest.mark.parametrize("password", ["x" * (MAX_LENGTH + 1), "secret\ud800word"])
def test_a_password_that_could_not_be_checked_is_not_hashed_and_not_in_the_error(password: str) -> None:
    with pytest.raises(ValueError, match="at most 1024 code points") as caught:
        make_password(password)
    assert type(caught.value) is ValueError
    assert password not in str(caught.value)
    assert "secret" not in repr(vars(caught.value))


def test_the_length_limit_of_hashing_counts_the_prepared_password() -> None:
    decomposed = "e\u0301" * MAX_LENGTH
    assert check_password("\u00e9" * MAX_LENGTH, make_password(decomposed))


def test_unusable_markers_are_djangos_and_unique() -> None:
    markers = {make_password(None) for _ in range(100)}
    assert len(markers) == 100
    assert all(re.fullmatch(r"![A-Za-z0-9]{40}", marker) for marker in markers)


def test_an_unusable_marker_matches_no_password() -> None:
    marker = make_password(None)
    assert not is_password_usable(marker)
    for password in ("", "!", marker, marker[1:], PASSWORD):
        assert not check_password(password, marker)


def test_anything_but_a_marker_counts_as_usable() -> None:
    assert is_password_usable("l\u00e8tmein_badencoded")
    assert is_password_usable("")


@pytest.mark.parametrize("encoded", MALFORMED)
def test_a_malformed_or_foreign_hash_matches_nothing_and_costs_a_hash(encoded: str, counting: CountingHasher) -> None:
    assert check_password(PASSWORD, encoded) is False
    assert len(counting.verified) == 1


@pytest.mark.parametrize("encoded", [hash_ for hash_ in MALFORMED if ",p=" not in hash_])
def test_what_is_not_an_argon2_hash_needs_no_rehash(encoded: str) -> None:
    """No password matches it, so there is none to hash anew."""
    assert password_needs_rehash(encoded) is False


@pytest.mark.parametrize("encoded", MALFORMED)
def test_asking_for_a_rehash_never_raises(encoded: str) -> None:
    assert password_needs_rehash(encoded) in {True, False}


@pytest.mark.parametrize(
    "password",
    ["", PASSWORD, "x" * MAX_LENGTH, "x" * (MAX_LENGTH + 1), "x" * 100_000, "a\ud800b", "nul\x00"],
    ids=["blank", "usual", "longest", "too long", "far too long", "surrogate", "nul"],
)
@pytest.mark.parametrize("stored", ["hash", "marker", "no user"])
def test_each_check_costs_exactly_one_hash(password: str, stored: str, counting: CountingHasher) -> None:
    """Or the answer's time would tell who has an account, or a password (CVE-2024-39329)."""
    encoded = {"hash": PasswordHasher(2, 19456, 1).hash("other"), "marker": make_password(None), "no user": None}
    assert check_password(password, encoded[stored]) is False
    assert (len(counting.verified), counting.hashes) == (1, 0)


def test_a_right_password_costs_one_hash_too(counting: CountingHasher) -> None:
    encoded = make_password(PASSWORD)
    assert check_password(PASSWORD, encoded)
    assert (counting.verified, counting.hashes) == ([encoded], 1)


def test_the_work_for_unknown_users_follows_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = CountingHasher(time_cost=1, memory_cost=64)
    monkeypatch.setattr(hashing, "hasher", cheap)
    check_password(PASSWORD, None)
    assert extract_parameters(cheap.verified[0]) == extract_parameters(cheap.hash(PASSWORD))


@pytest.mark.parametrize("encoded", ["", "malformed", None])
@pytest.mark.parametrize("password", ["\ud800", "\udfff" * 2000, "\x00", "\u0301" * 5000, "\U0010ffff"])
def test_checking_never_raises(password: str, encoded: str | None) -> None:
    assert check_password(password, encoded) is False


@pytest.mark.parametrize(
    "changed", [{"time_cost": 3}, {"memory_cost": 8192}, {"parallelism": 2}], ids=["time", "memory", "parallelism"]
)
def test_changed_parameters_ask_for_a_new_hash_and_old_ones_still_check(
    changed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = make_password(PASSWORD)
    assert not password_needs_rehash(encoded)
    monkeypatch.setattr(hashing, "hasher", CountingHasher(**changed))
    assert password_needs_rehash(encoded)
    assert check_password(PASSWORD, encoded)
    assert not password_needs_rehash(make_password(PASSWORD))


def test_an_older_kind_of_argon2_still_checks_and_asks_for_a_new_hash() -> None:
    encoded = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, type=Type.I).hash(PASSWORD)
    assert check_password(PASSWORD, encoded)
    assert not check_password("wrong", encoded)
    assert password_needs_rehash(encoded)


def test_an_unusable_marker_needs_no_rehash() -> None:
    assert not password_needs_rehash(make_password(None))
