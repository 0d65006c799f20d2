"""All rules together: every complaint at once, on the prepared password."""

import unicodedata
from types import SimpleNamespace

import pytest

from pwreset.passwords import (
    CommonPasswordValidator,
    MaximumLengthValidator,
    MinimumLengthValidator,
    PasswordValidator,
    PrintableValidator,
    ValidationError,
    default_validators,
    password_validators_help_texts,
    validate_password,
)

USER = SimpleNamespace(email="wolpertinger@zugspitzbahn.example")
TWO: list[PasswordValidator] = [CommonPasswordValidator(), MinimumLengthValidator(min_length=12)]


def refusal(
    password: str, user: object | None = None, validators: list[PasswordValidator] | None = None
) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        validate_password(password, user, validators)
    return caught.value


def codes(error: ValidationError) -> list[str]:
    return [single.code for single in error.error_list]


def test_a_good_password_is_accepted() -> None:
    validate_password("quantum violin tapestry")
    validate_password("quantum violin tapestry", USER, default_validators(15, "Example Shop"))


def test_one_complaint_is_one_message() -> None:
    error = refusal("django4242", validators=TWO)
    assert error.messages == ["This password is too short. It must contain at least 12 characters."]
    assert codes(error) == ["password_too_short"]


def test_all_complaints_come_at_once_in_the_order_of_the_validators() -> None:
    error = refusal("password", validators=TWO)
    assert error.messages == [
        "This password is too common.",
        "This password is too short. It must contain at least 12 characters.",
    ]
    assert codes(error) == ["password_too_common", "password_too_short"]


def test_the_standard_rules_complain_together() -> None:
    assert codes(refusal("12345678\t", USER)) == [
        "password_too_short",
        "password_not_printable",
        "password_too_common",
        "password_entirely_numeric",
        "password_too_weak",
    ]
    assert codes(refusal("", USER)) == ["password_too_short", "password_too_weak"]


def test_an_empty_list_of_validators_accepts_anything() -> None:
    validate_password("password", validators=[])


def test_validators_see_the_prepared_password() -> None:
    """Fourteen letters stay fourteen, however they were sent."""
    password = "\u00e9\u00e8\u00ea\u00eb\u00fc\u00f6\u00e4\u00f1\u00e7\u00e5\u00f4\u00ee\u00ef\u00fb"
    for form in ("NFC", "NFD"):
        assert "password_too_short" in codes(refusal(unicodedata.normalize(form, password)))
    assert codes(refusal("manchester\u3000united", validators=[CommonPasswordValidator()])) == ["password_too_common"]


def test_the_longest_password_is_accepted_in_either_spelling_and_one_more_is_refused() -> None:
    longest = "quantum violin tapestr" + "\u00e9" * 1002
    for form in ("NFC", "NFD"):
        validate_password(unicodedata.normalize(form, longest))
        assert codes(refusal(unicodedata.normalize(form, longest + "\u00e9"))) == ["password_too_long"]


def test_a_password_far_too_long_is_refused_as_too_long() -> None:
    assert "password_too_long" in codes(refusal("quantum violin tapestry " * 3000, USER))


def test_joined_emoji_are_accepted() -> None:
    validate_password("\U0001f468\u200d\U0001f469\u200d\U0001f467 quantum violin", USER)


def test_a_password_made_of_the_address_is_refused() -> None:
    assert "password_too_similar" in codes(refusal("wolpertinger@zugspitzbahn", USER))


def test_a_common_password_of_fifteen_characters_is_refused() -> None:
    assert "password_too_common" in codes(refusal("migrationschool"))


def test_a_password_built_on_the_sites_name_is_refused() -> None:
    validators = default_validators(15, "Zwrblgnft")
    validate_password("zwrblgnft123456")
    assert codes(refusal("zwrblgnft123456", validators=validators)) == ["password_too_weak"]


def test_a_refusal_never_repeats_the_password() -> None:
    error = refusal("hunter2\ud800", USER)
    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(vars(error))


def test_any_object_with_the_two_methods_is_a_validator() -> None:
    class NoCheese:
        def __init__(self) -> None:
            self.seen: list[tuple[str, object | None]] = []

        def validate(self, password: str, user: object | None = None) -> None:
            self.seen.append((password, user))
            if "cheese" in password:
                raise ValidationError("No cheese.", code="cheese")

        def get_help_text(self) -> str:
            return "Must not contain <cheese> & wine."

    own = NoCheese()
    assert codes(refusal("cheese\u00a0board", USER, [own])) == ["cheese"]
    assert own.seen == [("cheese board", USER)]
    assert password_validators_help_texts([own]) == ["Must not contain <cheese> & wine."]


def test_other_failures_of_a_validator_are_not_swallowed() -> None:
    class Broken(PrintableValidator):
        def validate(self, password: str, user: object | None = None) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        validate_password("x", validators=[Broken()])


def test_help_texts_follow_the_order_of_the_validators() -> None:
    assert password_validators_help_texts([]) == []
    assert password_validators_help_texts([MinimumLengthValidator(12), MaximumLengthValidator(64)]) == [
        "Your password must contain at least 12 characters.",
        "Your password can contain at most 64 characters.",
    ]


def test_the_standard_list_is_complete_and_in_display_order() -> None:
    assert [type(validator).__name__ for validator in default_validators(20, "Shop")] == [
        "MinimumLengthValidator",
        "MaximumLengthValidator",
        "PrintableValidator",
        "UserAttributeSimilarityValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
        "StrengthValidator",
    ]
    assert "at least 20 characters" in password_validators_help_texts(default_validators(20, "Shop"))[0]


def test_an_error_that_joins_others_lists_them_flat() -> None:
    inner = ValidationError([ValidationError("One.", code="one"), ValidationError("Two.", code="two")])
    outer = ValidationError([inner, ValidationError("Three.", code="three")])
    assert outer.messages == ["One.", "Two.", "Three."]
    assert str(outer) == "One. Two. Three."
    assert (outer.code, codes(outer)) == ("invalid", ["one", "two", "three"])
