"""Email addresses: which are valid, which are equal, and how they are written in SMTP."""

import pytest

import config
from pwreset.addresses import MAXIMUM_KEY, MAXIMUM_LENGTH, AddressError, email_key, envelope, normalize


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("alice@example.com", "alice@example.com"),
        ("  alice@example.com\n", "alice@example.com"),
        ("Alice@EXAMPLE.Com", "Alice@example.com"),
        ("alice@localhost", "alice@localhost"),
        ("alice@intranet.local", "alice@intranet.local"),
        ("alice@mail.test", "alice@mail.test"),
        ("alice+tag@example.com", "alice+tag@example.com"),
        ("jose\u0301@example.com", "josé@example.com"),
        ("anna@BÜCHER.example", "anna@bücher.example"),
        ("anna@xn--bcher-kva.example", "anna@bücher.example"),
        ("alice@ｅｘａｍｐｌｅ.com", "alice@example.com"),
        ("用户@例子.广告", "用户@例子.广告"),
    ],
)
def test_an_address_is_stored_trimmed_composed_and_with_its_domain_in_lower_case(typed: str, stored: str) -> None:
    assert normalize(typed) == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "alice",
        "@example.com",
        "alice@",
        "alice@example",
        "alice@@example.com",
        "=?utf-8?q?eve=40evil.test=2c?=alice@example.com",
        "alice@example..com",
        "alice@-example.com",
        "alice smith@example.com",
        "Alice <alice@example.com>",
        "alice@example.com, bob@example.com",
        "alice@example.com\nBcc: bob@example.com",
        "alice@example.com\x00",
        "al\x00ice@example.com",
        "al\u202eice@example.com",
        '"alice smith"@example.com',
        "alice@[127.0.0.1]",
        "alice@my_host.example",
        "alice@" + "a" * 64 + ".com",
        "a" * 255,
        "alice@\ud800.com",
        "\ud800@example.com",
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(AddressError) as refusal:
        normalize(text)
    assert str(refusal.value).endswith(".")


def test_an_address_has_at_most_254_characters() -> None:
    longest = "a" * 64 + "@b" + ".".join(["b" * 62] * 3)
    assert len(longest) == MAXIMUM_LENGTH
    assert normalize(longest) == longest
    with pytest.raises(AddressError, match="at most 254 characters"):
        normalize(longest + "b")


def test_a_key_that_unfolds_beyond_its_column_is_refused() -> None:
    # One character that becomes eighteen: ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM.
    text = "\ufdfa" * 50 + "@example.com"
    assert len(email_key(text)) > MAXIMUM_KEY
    with pytest.raises(AddressError):
        normalize(text)


def test_an_address_normalized_once_stays_as_it_is() -> None:
    for text in ("jose\u0301@BÜCHER.example", "Alice@EXAMPLE.com", "ａ@example.com"):
        assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice@example.com", "ALICE@EXAMPLE.COM"),
        ("josé@example.com", "JOSÉ@example.com"),
        ("josé@example.com", "jose\u0301@example.com"),
        ("alice@example.com", "ａｌｉｃｅ@example.com"),
        ("kite@example.com", "\u212aite@example.com"),
        ("strasse@example.com", "STRAẞE@example.com"),
        ("σσ@example.com", "σς@example.com"),
        ("office@example.com", "oﬃce@example.com"),
    ],
)
def test_two_spellings_of_an_address_have_one_key(one: str, other: str) -> None:
    assert email_key(one) == email_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("josé@example.com", "jose@example.com"),
        ("mike@example.com", "mıke@example.com"),
        ("alice@example.com", "аlice@example.com"),
        ("alice@example.com", "alice+tag@example.com"),
        ("alice@example.com", "al.ice@example.com"),
    ],
)
def test_two_addresses_that_look_alike_have_two_keys(one: str, other: str) -> None:
    assert email_key(one) != email_key(other)


def test_a_key_is_its_own_key() -> None:
    for text in ("ǰ@example.com", "İ@example.com", "ﬃ\u212a@example.com", "\u0345ΐ@example.com"):
        assert email_key(email_key(text)) == email_key(text)


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Alice@Example.com", "Alice@Example.com"),
        ("anna@bücher.example", "anna@xn--bcher-kva.example"),
        ("josé@bücher.example", "josé@xn--bcher-kva.example"),
        ("user@straße.example", "user@xn--strae-oqa.example"),
        ("root@localhost", "root@localhost"),
        ("app@mail_relay", "app@mail_relay"),
        ("app@corp.local", "app@corp.local"),
        ("root@[127.0.0.1]", "root@[127.0.0.1]"),
    ],
)
def test_on_the_wire_the_domain_is_ascii_and_the_rest_is_left_alone(address: str, wire: str) -> None:
    assert envelope(address) == wire


@pytest.mark.parametrize(
    "sender", ["accounts", "x@a..b", "@example.com", "x@", "Name <>", "jürgen@example.com", "x@.de"]
)
def test_a_sender_that_is_no_address_stops_the_start_by_name(sender: str) -> None:
    with pytest.raises(config.ConfigError, match="EMAIL_FROM is missing or not an address"):
        config.read({"EMAIL_HOST": "localhost", "EMAIL_FROM": sender})
