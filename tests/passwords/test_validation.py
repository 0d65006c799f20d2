"""How new passwords are validated: all complaints at once, and the rules about length and characters."""

import unicodedata
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from pwreset.passwords.strength import CommonPasswordValidator, default_validators
from pwreset.passwords.validation import (
    MaximumLengthValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    PasswordValidator,
    PrintableValidator,
    ValidationError,
    password_validators_help_texts,
    validate_password,
)

USER = SimpleNamespace(email="wolpertinger@zugspitzbahn.example")
TWO: list[PasswordValidator] = [CommonPasswordValidator(), MinimumLengthValidator(min_length=12)]
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def refusal(
    password: str, user: object | None = None, validators: Sequence[PasswordValidator] | None = None
) -> ValidationError:
    """Return the error of these validators, or of the default ones."""
    with pytest.raises(ValidationError) as caught:
        validate_password(password, user, default_validators() if validators is None else validators)
    return caught.value


def codes(error: ValidationError) -> list[str]:
    return [single.code for single in error.error_list]


def rule_refusal(validator: PasswordValidator, password: str) -> ValidationError:
    """Return the error of one rule on its own."""
    with pytest.raises(ValidationError) as caught:
        validator.validate(password)
    return caught.value


def test_a_good_password_is_accepted() -> None:
    validate_password("quantum violin tapestry", None, default_validators())
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


def test_the_default_validators_complain_together() -> None:
    assert codes(refusal("12345678\t", USER)) == [
        "password_too_short",
        "password_not_printable",
        "password_too_common",
        "password_entirely_numeric",
        "password_too_weak",
    ]
    assert codes(refusal("", USER)) == ["password_too_short", "password_too_weak"]


def test_an_empty_list_of_validators_accepts_anything() -> None:
    validate_password("password", None, [])


def test_validators_see_the_prepared_password() -> None:
    """Fourteen letters stay fourteen, however they were sent."""
    password = "\u00e9\u00e8\u00ea\u00eb\u00fc\u00f6\u00e4\u00f1\u00e7\u00e5\u00f4\u00ee\u00ef\u00fb"
    for form in ("NFC", "NFD"):
        assert "password_too_short" in codes(refusal(unicodedata.normalize(form, password)))
    assert codes(refusal("manchester\u3000united", validators=[CommonPasswordValidator()])) == ["password_too_common"]


def test_the_longest_password_is_accepted_in_either_spelling_and_one_more_is_refused() -> None:
    longest = "quantum violin tapestr" + "\u00e9" * 1002
    for form in ("NFC", "NFD"):
        validate_password(unicodedata.normalize(form, longest), None, default_validators())
        assert codes(refusal(unicodedata.normalize(form, longest + "\u00e9"))) == ["password_too_long"]


def test_a_password_far_too_long_is_refused_as_too_long() -> None:
    assert "password_too_long" in codes(refusal("quantum violin tapestry " * 3000, USER))


def test_joined_emoji_are_accepted() -> None:
    validate_password("\U0001f468\u200d\U0001f469\u200d\U0001f467 quantum violin", USER, default_validators())


def test_a_password_made_of_the_address_is_refused() -> None:
    assert "password_too_similar" in codes(refusal("wolpertinger@zugspitzbahn", USER))


def test_a_common_password_of_fifteen_characters_is_refused() -> None:
    assert "password_too_common" in codes(refusal("migrationschool"))


def test_a_password_built_on_the_sites_name_is_refused() -> None:
    validators = default_validators(15, "Zwrblgnft")
    validate_password("zwrblgnft123456", None, default_validators())
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
        validate_password("x", None, [Broken()])


def test_help_texts_follow_the_order_of_the_validators() -> None:
    assert password_validators_help_texts([]) == []
    assert password_validators_help_texts([MinimumLengthValidator(12), MaximumLengthValidator(64)]) == [
        "Your password must contain at least 12 characters.",
        "Your password can contain at most 64 characters.",
    ]


def test_an_error_that_joins_others_lists_them_flat() -> None:
    inner = ValidationError([ValidationError("One.", code="one"), ValidationError("Two.", code="two")])
    outer = ValidationError([inner, ValidationError("Three.", code="three")])
    assert outer.messages == ["One.", "Two.", "Three."]
    assert str(outer) == "One. Two. Three."
    assert (outer.code, codes(outer)) == ("invalid", ["one", "two", "three"])


# --- the rules about length and characters


def test_fifteen_characters_are_enough_and_fourteen_are_not() -> None:
    MinimumLengthValidator().validate("x" * 15)
    error = rule_refusal(MinimumLengthValidator(), "x" * 14)
    assert error.messages == ["This password is too short. It must contain at least 15 characters."]
    assert error.code == "password_too_short"


def test_the_minimum_length_can_be_chosen() -> None:
    MinimumLengthValidator(min_length=3).validate("123")
    error = rule_refusal(MinimumLengthValidator(min_length=3), "12")
    assert error.messages == ["This password is too short. It must contain at least 3 characters."]


def test_1024_code_points_are_accepted_and_1025_are_refused() -> None:
    MaximumLengthValidator().validate("x" * 1024)
    error = rule_refusal(MaximumLengthValidator(), "x" * 1025)
    assert error.messages == ["This password is too long. It must contain at most 1024 characters."]
    assert error.code == "password_too_long"


def test_lengths_are_counted_in_code_points() -> None:
    """Not bytes, UTF-16 units or visible characters: the family is five code points."""
    MinimumLengthValidator().validate(FAMILY * 3)
    MaximumLengthValidator(max_length=15).validate(FAMILY * 3)
    assert rule_refusal(MinimumLengthValidator(min_length=16), FAMILY * 3)
    assert rule_refusal(MinimumLengthValidator(), "\U0001f600" * 14)


def test_length_sentences_have_a_singular() -> None:
    assert rule_refusal(MinimumLengthValidator(1), "").messages[0].endswith("at least 1 character.")
    assert rule_refusal(MaximumLengthValidator(1), "xx").messages[0].endswith("at most 1 character.")
    assert MinimumLengthValidator(1).get_help_text() == "Your password must contain at least 1 character."
    assert MaximumLengthValidator(1).get_help_text() == "Your password can contain at most 1 character."


@pytest.mark.parametrize("char", ["\x00", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9f", "\ud800", "\udfff"])  # noqa: PT014
def test_control_characters_and_lone_surrogates_are_refused(char: str) -> None:
    error = rule_refusal(PrintableValidator(), f"correct{char}horse")
    assert error.code == "password_not_printable"
    assert "can’t be typed" in error.messages[0]


@pytest.mark.parametrize(
    "password",
    ["".join(map(chr, range(0x20, 0x7F))), FAMILY, "\u200dj\u00f6in \u05e9\u05dc\u05d5\u05dd", "\u0378", "\ue000", ""],
    ids=["ascii", "joined emoji", "joiner and hebrew", "unassigned", "private use", "nothing"],
)
def test_every_other_character_is_accepted(password: str) -> None:
    PrintableValidator().validate(password)


@pytest.mark.parametrize("password", ["42424242", "1234 5678 9012 3456", " 42 ", "\u0664\u0662", "12\u00b2"])
def test_digits_alone_are_refused_with_or_without_spaces(password: str) -> None:
    error = rule_refusal(NumericPasswordValidator(), password)
    assert error.messages == ["This password is entirely numeric."]
    assert error.code == "password_entirely_numeric"


@pytest.mark.parametrize("password", ["a-safe-password", "4242-4242", "4242x", "3.14", "", "   "])
def test_digits_with_anything_else_are_accepted(password: str) -> None:
    NumericPasswordValidator().validate(password)


def test_help_texts_are_djangos() -> None:
    assert MinimumLengthValidator().get_help_text() == "Your password must contain at least 15 characters."
    assert MaximumLengthValidator().get_help_text() == "Your password can contain at most 1024 characters."
    assert NumericPasswordValidator().get_help_text() == "Your password can’t be entirely numeric."
    assert "emoji" in PrintableValidator().get_help_text()


def test_messages_can_be_replaced_in_a_subclass() -> None:
    class Short(MinimumLengthValidator):
        def get_error_message(self) -> str:
            return f"{self.min_length} characters, please"

    class Digits(NumericPasswordValidator):
        def get_error_message(self) -> str:
            return "All digits."

    assert rule_refusal(Short(3), "12").messages == ["3 characters, please"]
    assert rule_refusal(Digits(), "42").messages == ["All digits."]
