"""The list of common passwords, and what it refuses."""

import gzip
import hashlib
from pathlib import Path

import pytest

from pwreset.passwords import CommonPasswordValidator, ValidationError, common

SHIPPED = common.DEFAULT_PASSWORD_LIST_PATH
SHA256 = "3c1baed62596de36860824eb3f436d5932d37ca8b06e59df78f5a44ec175afe4"


def refusal(password: str, validator: CommonPasswordValidator | None = None) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        (validator or CommonPasswordValidator()).validate(password)
    return caught.value


def test_the_shipped_list_is_djangos_unchanged() -> None:
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == SHA256


def test_the_shipped_list_is_complete_lower_case_and_without_doubles() -> None:
    lines = gzip.decompress(SHIPPED.read_bytes()).decode().splitlines()
    assert len(lines) == len(set(lines)) == len(CommonPasswordValidator().passwords) == 19_640
    assert all(line == line.lower().strip() for line in lines)
    assert sum(len(line) >= 15 for line in lines) == 48


def test_the_readme_beside_the_list_says_what_is_shipped() -> None:
    readme = SHIPPED.with_name("common-passwords.README.md").read_text()
    unpacked = hashlib.sha256(gzip.decompress(SHIPPED.read_bytes())).hexdigest()
    for fact in (SHA256, unpacked, "19,640", "48", "Royce Williams", "BSD-3-Clause", "common-passwords.LICENSE"):
        assert fact in readme
    assert "Django Software Foundation" in SHIPPED.with_name("common-passwords.LICENSE").read_text()


@pytest.mark.parametrize("password", ["godzilla", "GodZilla", "  godzilla ", "asdfjkl:", "&#2336:"])
def test_a_listed_password_is_refused_in_any_case(password: str) -> None:
    error = refusal(password)
    assert error.messages == ["This password is too common."]
    assert error.code == "password_too_common"


@pytest.mark.parametrize("password", ["migrationschool", "manchesterunited", "1234567890qwertyuiop"])
def test_a_listed_password_long_enough_for_the_length_rule_is_refused(password: str) -> None:
    assert len(password) >= 15
    assert refusal(password).code == "password_too_common"


@pytest.mark.parametrize("password", ["manchester united", "Migration School", "m a n c h e s t e r united"])
def test_white_space_does_not_hide_a_listed_password(password: str) -> None:
    assert refusal(password).code == "password_too_common"


def test_a_listed_password_with_spaces_of_its_own_is_refused() -> None:
    assert refusal("friend of emily").code == "password_too_common"


def test_a_password_that_is_not_listed_passes() -> None:
    CommonPasswordValidator().validate("a-safe-password")


@pytest.mark.parametrize("name", ["own.txt", "own.txt.gz"])
def test_another_list_can_be_given_plain_or_packed(name: str, tmp_path: Path) -> None:
    content = b"from-my-own-list\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    validator = CommonPasswordValidator(password_list_path=tmp_path / name)
    assert refusal("From-My-Own-List", validator).code == "password_too_common"
    validator.validate("godzilla")


def test_the_list_is_read_at_the_first_validation_and_once_per_process(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    validator = CommonPasswordValidator(password_list_path=path)
    path.write_text("first\n")
    assert refusal("first", validator)
    path.unlink()
    assert refusal("first", CommonPasswordValidator(password_list_path=path))


def test_the_help_text_and_message_are_djangos_and_the_message_can_be_replaced() -> None:
    class Own(CommonPasswordValidator):
        def get_error_message(self) -> str:
            return "This password has been used too much."

    assert CommonPasswordValidator().get_help_text() == "Your password can’t be a commonly used password."
    assert refusal("godzilla", Own()).messages == ["This password has been used too much."]
