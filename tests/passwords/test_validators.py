"""Length, characters and similarity: each rule on its own."""

from types import SimpleNamespace

import pytest

from pwreset.passwords import (
    MaximumLengthValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    PasswordValidator,
    PrintableValidator,
    UserAttributeSimilarityValidator,
    ValidationError,
)

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
USER = SimpleNamespace(email="testclient@example.com", first_name="Test", username="testclient")


def refusal(validator: PasswordValidator, password: str, user: object | None = None) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        validator.validate(password, user)
    return caught.value


def test_fifteen_characters_are_enough_and_fourteen_are_not() -> None:
    MinimumLengthValidator().validate("x" * 15)
    error = refusal(MinimumLengthValidator(), "x" * 14)
    assert error.messages == ["This password is too short. It must contain at least 15 characters."]
    assert error.code == "password_too_short"


def test_the_minimum_length_can_be_chosen() -> None:
    MinimumLengthValidator(min_length=3).validate("123")
    error = refusal(MinimumLengthValidator(min_length=3), "12")
    assert error.messages == ["This password is too short. It must contain at least 3 characters."]


def test_1024_code_points_are_accepted_and_1025_are_refused() -> None:
    MaximumLengthValidator().validate("x" * 1024)
    error = refusal(MaximumLengthValidator(), "x" * 1025)
    assert error.messages == ["This password is too long. It must contain at most 1024 characters."]
    assert error.code == "password_too_long"


def test_lengths_are_counted_in_code_points() -> None:
    """Not bytes, UTF-16 units or visible characters: the family is five code points."""
    MinimumLengthValidator().validate(FAMILY * 3)
    MaximumLengthValidator(max_length=15).validate(FAMILY * 3)
    assert refusal(MinimumLengthValidator(min_length=16), FAMILY * 3)
    assert refusal(MinimumLengthValidator(), "\U0001f600" * 14)


def test_length_sentences_have_a_singular() -> None:
    assert refusal(MinimumLengthValidator(1), "").messages[0].endswith("at least 1 character.")
    assert refusal(MaximumLengthValidator(1), "xx").messages[0].endswith("at most 1 character.")
    assert MinimumLengthValidator(1).get_help_text() == "Your password must contain at least 1 character."
    assert MaximumLengthValidator(1).get_help_text() == "Your password can contain at most 1 character."


@pytest.mark.parametrize("char", ["\x00", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9f", "\ud800", "\udfff"])  # noqa: PT014
def test_control_characters_and_lone_surrogates_are_refused(char: str) -> None:
    error = refusal(PrintableValidator(), f"correct{char}horse")
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
    error = refusal(NumericPasswordValidator(), password)
    assert error.messages == ["This password is entirely numeric."]
    assert error.code == "password_entirely_numeric"


@pytest.mark.parametrize("password", ["a-safe-password", "4242-4242", "4242x", "3.14", "", "   "])
def test_digits_with_anything_else_are_accepted(password: str) -> None:
    NumericPasswordValidator().validate(password)


@pytest.mark.parametrize(
    "password",
    [
        "testclient",
        "TESTCLIENT",
        "example.com",
        "testclient@example.com",
        "testclient-example-com-1",
        "moc.elpmaxe@tneilctset",
    ],
)
def test_a_password_made_of_the_address_or_its_words_is_refused(password: str) -> None:
    error = refusal(UserAttributeSimilarityValidator(), password, USER)
    assert error.messages == ["The password is too similar to the email address."]
    assert error.code == "password_too_similar"


def test_a_password_unlike_the_address_is_accepted() -> None:
    UserAttributeSimilarityValidator().validate("quantum violin tapestry", USER)


def test_spellings_of_the_address_are_compared_prepared() -> None:
    user = SimpleNamespace(email="rene\u0301e\u0301e\u0301e\u0301@example.com")
    assert refusal(UserAttributeSimilarityValidator(), "ren\u00e9\u00e9\u00e9\u00e9", user)


@pytest.mark.parametrize(
    "user",
    [None, SimpleNamespace(), SimpleNamespace(email=None), SimpleNamespace(email=""), SimpleNamespace(email=42)],
    ids=["no user", "no attribute", "None", "blank", "not text"],
)
def test_without_an_address_there_is_nothing_to_compare(user: object | None) -> None:
    UserAttributeSimilarityValidator().validate("testclient", user)


def test_a_blank_password_is_like_nothing() -> None:
    UserAttributeSimilarityValidator().validate("", SimpleNamespace(email="@"))


def test_an_attribute_may_be_a_property() -> None:
    class Computed:
        @property
        def email(self) -> str:
            return "foobar@example.com"

    assert refusal(UserAttributeSimilarityValidator(), "foobar", Computed())


def test_other_attributes_and_another_ratio_can_be_chosen() -> None:
    by_name = UserAttributeSimilarityValidator(user_attributes=["first_name"], max_similarity=0.3)
    assert refusal(by_name, "testclient", USER).messages == ["The password is too similar to the first name."]
    UserAttributeSimilarityValidator(user_attributes=["first_name"]).validate("testclient", USER)


def test_at_a_ratio_of_one_only_the_attribute_itself_is_refused() -> None:
    strict = UserAttributeSimilarityValidator(user_attributes=["first_name"], max_similarity=1)
    assert refusal(strict, "Test", USER)
    strict.validate("Tests", USER)


def test_a_ratio_that_would_refuse_nearly_everything_is_an_error() -> None:
    UserAttributeSimilarityValidator(max_similarity=0.1)
    with pytest.raises(ValueError, match=r"max_similarity must be at least 0\.1"):
        UserAttributeSimilarityValidator(max_similarity=0.09)


def test_a_long_password_is_not_refused_for_holding_a_short_word_of_the_address() -> None:
    UserAttributeSimilarityValidator().validate("io " * 300, SimpleNamespace(email="io@io.io"))


def test_help_texts_are_djangos() -> None:
    assert MinimumLengthValidator().get_help_text() == "Your password must contain at least 15 characters."
    assert MaximumLengthValidator().get_help_text() == "Your password can contain at most 1024 characters."
    assert NumericPasswordValidator().get_help_text() == "Your password can’t be entirely numeric."
    assert UserAttributeSimilarityValidator().get_help_text() == (
        "Your password can’t be too similar to your other personal information."
    )
    assert "emoji" in PrintableValidator().get_help_text()


def test_messages_can_be_replaced_in_a_subclass() -> None:
    class Short(MinimumLengthValidator):
        def get_error_message(self) -> str:
            return f"{self.min_length} characters, please"

    class Close(UserAttributeSimilarityValidator):
        def get_error_message(self) -> str:
            return "Too close to the %(verbose_name)s."

    class Silent(UserAttributeSimilarityValidator):
        def get_error_message(self) -> str:
            return "Too close to you."

    class Digits(NumericPasswordValidator):
        def get_error_message(self) -> str:
            return "All digits."

    assert refusal(Short(3), "12").messages == ["3 characters, please"]
    assert refusal(Close(), "testclient", USER).messages == ["Too close to the email address."]
    assert refusal(Silent(), "testclient", USER).messages == ["Too close to you."]
    assert refusal(Digits(), "42").messages == ["All digits."]
