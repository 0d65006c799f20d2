"""A token is valid for one account, one purpose, one state of the account and a limited time."""

import base64
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import update

from pwreset import accounts
from pwreset.accounts.tokens import (
    PasswordResetTokenGenerator,
    TokenExpired,
    TokenInvalid,
    decode_uid,
    encode_uid,
    token_generator,
)
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import User
from pwreset.outbox import EmailKind, cooldown
from pwreset.outbox.cooldown import Slot
from tests.support.app import MakeApp, add_user
from tests.support.passwords import NEW_PASSWORD, PASSWORD

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
OLD_KEY, NEW_KEY, THIRD_KEY = (f"{name}-key-0123456789-abcdefghijklmnopqrstuvwxyz" for name in ("old", "new", "third"))
NOW = datetime(2031, 5, 6, 7, 8, 9, 900_000, tzinfo=UTC)


@pytest.fixture
def user(app: Flask, alice: int) -> Iterator[User]:
    with app.app_context():
        yield reloaded(alice)


@pytest.fixture
def generator() -> PasswordResetTokenGenerator:
    return PasswordResetTokenGenerator()


def reloaded(user_id: int) -> User:
    user = accounts.find_by_id(user_id)
    assert user is not None
    return user


def write(user_id: int, **values: Any) -> None:
    db.session.execute(update(User).where(User.id == user_id).values(**values))
    db.session.commit()


def made_and_checked_by(make_app: MakeApp, user_id: int, makes: dict[str, str], checks: dict[str, str]) -> bool:
    """Make a token in an application with one set of keys and check it in another, both on one database."""
    with make_app(**makes).app_context():
        token = PasswordResetTokenGenerator().make_token(reloaded(user_id))
    with make_app(**checks).app_context():
        return PasswordResetTokenGenerator().check_token(reloaded(user_id), token)


def test_fresh_token_is_valid(generator, user) -> None:
    assert generator.check_token(user, generator.make_token(user))


def test_verify_returns_the_account(generator, user) -> None:
    assert generator.verify(user, generator.make_token(user)) is user


def test_token_is_50_characters_that_need_no_escaping_in_a_url(generator, user) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{43}", generator.make_token(user))


def test_token_of_an_account_just_created_equals_the_one_of_the_account_as_stored(app, generator) -> None:
    with app.app_context(), time_machine.travel(NOW, tick=False):
        created = accounts.create("carol@example.com", PASSWORD)
        accounts.record_login(created)
        db.session.commit()
        token = generator.make_token(created)
        db.session.expunge_all()
        assert generator.make_token(reloaded(created.id)) == token


def log_in(user: User) -> None:
    assert accounts.record_login(user)


def choose_another_password(user: User) -> None:
    assert accounts.set_password(user, NEW_PASSWORD)


def choose_the_same_password(user: User) -> None:
    assert accounts.set_password(user, PASSWORD)


def revoke_sessions(user: User) -> None:
    assert accounts.revoke_sessions(user)


def deactivate(user: User) -> None:
    accounts.set_active(user, active=False)


def deactivate_and_activate(user: User) -> None:
    accounts.set_active(user, active=False)
    accounts.set_active(user, active=True)


def change_the_address(user: User) -> None:
    write(user.id, email="alice@new.example.com", email_key="alice@new.example.com")


def rehash_at_login(user: User) -> None:
    write(user.id, password_hash=user.password_hash + "x", last_login=utcnow())


@pytest.mark.parametrize(
    "change",
    [
        log_in,
        choose_another_password,
        choose_the_same_password,
        revoke_sessions,
        deactivate,
        deactivate_and_activate,
        change_the_address,
        rehash_at_login,
    ],
    ids=lambda change: change.__name__,
)
def test_token_dies_with(change: Callable[[User], None], generator, user) -> None:
    token = generator.make_token(user)
    change(user)
    db.session.commit()
    with pytest.raises(TokenInvalid):
        generator.verify(reloaded(user.id), token)


def test_deactivated_account_has_no_valid_token_even_in_the_same_state(generator, user) -> None:
    write(user.id, is_active=False)
    deactivated = reloaded(user.id)
    assert not generator.check_token(deactivated, generator.make_token(deactivated))


def test_second_login_kills_a_token_made_after_the_first(generator, user) -> None:
    log_in(user)
    db.session.commit()
    token = generator.make_token(reloaded(user.id))
    log_in(reloaded(user.id))
    db.session.commit()
    assert not generator.check_token(reloaded(user.id), token)


def test_an_email_leaves_the_tokens_of_its_account_valid(generator, user) -> None:
    token = generator.make_token(user)
    assert isinstance(cooldown.claim(user, EmailKind.PASSWORD_RESET), Slot)
    assert generator.check_token(reloaded(user.id), token)


def test_token_is_invalid_without_an_account(generator, user) -> None:
    with pytest.raises(TokenInvalid):
        generator.verify(None, generator.make_token(user))


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_invalid(token, generator, user) -> None:
    with pytest.raises(TokenInvalid):
        generator.verify(user, token)


def test_token_of_another_account_is_invalid(app, generator, user) -> None:
    bob = reloaded(add_user(app, "bob@example.com", PASSWORD))
    assert not generator.check_token(bob, generator.make_token(user))


def test_token_of_another_account_with_the_same_state_is_invalid(generator, user) -> None:
    token = generator.make_token(user)
    twin = User(
        id=user.id + 1,
        email=user.email,
        password_hash=user.password_hash,
        security_stamp=user.security_stamp,
        is_active=True,
    )
    assert not generator.check_token(twin, token)


@pytest.mark.parametrize(("purpose", "setting"), [("reset", "PASSWORD_RESET_TIMEOUT"), ("invite", "INVITE_TIMEOUT")])
@pytest.mark.parametrize("seconds", [1, 60, 604800])
def test_token_is_alive_at_exactly_the_timeout_and_expired_a_second_later(
    purpose, setting, seconds, make_app, alice
) -> None:
    with make_app(**{setting: seconds}).app_context(), time_machine.travel(NOW, tick=False) as clock:
        generator, user = token_generator(purpose), reloaded(alice)
        token = generator.make_token(user)
        clock.shift(seconds)
        assert generator.check_token(user, token)
        clock.shift(1)
        with pytest.raises(TokenExpired):
            generator.verify(user, token)


def test_reset_lives_an_hour_and_an_invitation_three_days_unless_set(app) -> None:
    with app.app_context():
        lifetimes = [token_generator(purpose).lifetime for purpose in ("reset", "invite")]
    assert lifetimes == [3600, 259200]


@pytest.mark.parametrize("spoil", [lambda token: token[:-5] + "AAAAA", lambda _: "AAAAAA." + "A" * 43])
def test_old_token_that_was_never_authentic_is_invalid_and_not_expired(spoil, generator, user) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        token = generator.make_token(user)
        clock.shift(3601)
        with pytest.raises(TokenInvalid):
            generator.verify(user, spoil(token))


def test_expired_token_of_an_account_that_changed_since_is_invalid_and_not_expired(generator, user) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        token = generator.make_token(user)
        revoke_sessions(user)
        db.session.commit()
        clock.shift(3601)
        with pytest.raises(TokenInvalid):
            generator.verify(reloaded(user.id), token)


@pytest.mark.parametrize("ahead", [1, 86400])
def test_token_from_the_future_is_invalid_and_not_expired(ahead, generator, user) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        token = generator.make_token(user)
        clock.shift(-ahead)
        with pytest.raises(TokenInvalid):
            generator.verify(user, token)


@pytest.mark.parametrize(("makes", "checks"), [("reset", "invite"), ("invite", "reset")])
def test_token_of_one_purpose_is_invalid_for_another(makes, checks, user) -> None:
    token = token_generator(makes).make_token(user)
    assert not token_generator(checks).check_token(user, token)


def test_token_made_with_another_secret_key_is_invalid(make_app, alice) -> None:
    assert not made_and_checked_by(make_app, alice, {"SECRET_KEY": OLD_KEY}, {"SECRET_KEY": NEW_KEY})


@pytest.mark.parametrize("fallbacks", [OLD_KEY, f"{OLD_KEY},{THIRD_KEY}", f"{THIRD_KEY},{OLD_KEY}"])
def test_token_made_before_the_key_was_rotated_is_valid_while_the_old_key_is_a_fallback(
    fallbacks, make_app, alice
) -> None:
    rotated = {"SECRET_KEY": NEW_KEY, "SECRET_KEY_FALLBACKS": fallbacks}
    assert made_and_checked_by(make_app, alice, {"SECRET_KEY": OLD_KEY}, rotated)


def test_token_dies_when_its_key_is_taken_off_the_fallbacks(make_app, alice) -> None:
    rotated = {"SECRET_KEY": NEW_KEY, "SECRET_KEY_FALLBACKS": THIRD_KEY}
    assert not made_and_checked_by(make_app, alice, {"SECRET_KEY": OLD_KEY}, rotated)


def test_new_tokens_are_made_with_the_newest_key(make_app, alice) -> None:
    rotated = {"SECRET_KEY": NEW_KEY, "SECRET_KEY_FALLBACKS": OLD_KEY}
    assert made_and_checked_by(make_app, alice, rotated, {"SECRET_KEY": NEW_KEY})


class Fixed(PasswordResetTokenGenerator):
    """A generator of a team's own: its tokens depend on what it is given."""

    def __init__(self, *fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def state(self, user: User) -> list[Any]:
        return list(self.fields)


def test_generator_with_a_state_of_its_own_shares_no_token_with_ours(generator, user) -> None:
    own = Fixed("a state of our own")
    assert own.check_token(user, own.make_token(user))
    assert not own.check_token(user, generator.make_token(user))
    assert not generator.check_token(user, own.make_token(user))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a", "b"), ('a", "b',)),
        ((1, "1"), ("1", 1)),
        ((None,), ("None",)),
        ((None,), ("",)),
        ((None,), ("null",)),
        (("a", ""), ("a",)),
        (("é",), ("\\u00e9",)),
    ],
)
def test_fields_of_the_state_do_not_run_together(one, other, user) -> None:
    assert Fixed(*one).check_token(user, Fixed(*one).make_token(user))
    assert not Fixed(*other).check_token(user, Fixed(*one).make_token(user))


def test_token_with_any_one_character_changed_is_invalid(generator, user) -> None:
    token = generator.make_token(user)
    for position, char in enumerate(token):
        other = "x" if char == "." else ALPHABET[(ALPHABET.index(char) + 4) % 64]
        with pytest.raises(TokenInvalid):
            generator.verify(user, token[:position] + other + token[position + 1 :])


def test_token_cut_off_anywhere_is_invalid(generator, user) -> None:
    token = generator.make_token(user)
    for length in range(len(token)):
        with pytest.raises(TokenInvalid):
            generator.verify(user, token[:length])
        with pytest.raises(TokenInvalid):
            generator.verify(user, token[len(token) - length :])


def test_only_the_canonical_one_of_four_spellings_of_a_signature_is_valid(generator, user) -> None:
    token = generator.make_token(user)
    index = ALPHABET.index(token[-1])
    spellings = [token[:-1] + char for char in ALPHABET[index - index % 4 : index - index % 4 + 4]]
    decoded = {base64.urlsafe_b64decode(one.partition(".")[2] + "=") for one in spellings}
    assert len(decoded) == 1
    assert [one for one in spellings if generator.check_token(user, one)] == [token]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token + "=",
        lambda token: token + "A",
        lambda token: token + ".",
        lambda token: "." + token,
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token + "\0",
        lambda token: "\0" + token,
        lambda token: token.replace(".", ".\0"),
        lambda token: token + "é",
        lambda token: token.replace(".", "。"),
        lambda token: token + "\ud800",
        lambda token: token.replace(".", ".."),
        lambda token: token.replace(".", ":"),
        lambda token: token.replace(".", ""),
        lambda token: f"{token}.{token}",
        lambda token: "MQ." + token,
        lambda token: token.swapcase(),
        lambda _: ".",
        lambda _: "\0",
        lambda _: "set-password",
        lambda _: "A" * 201,
        lambda token: "A" * 1_000_000 + token,
        lambda _: "." * 1_000_000,
    ],
)
def test_spoiled_token_is_invalid(spoil, generator, user) -> None:
    with pytest.raises(TokenInvalid):
        generator.verify(user, spoil(generator.make_token(user)))


def test_error_repeats_neither_the_token_nor_what_was_signed(generator, user) -> None:
    with pytest.raises(TokenInvalid) as caught:
        generator.verify(user, generator.make_token(user)[:-1] + "!")
    assert caught.value.args == ()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("user_id", [1, 9, 10, 42, 1_000_000, 2**31 - 1])
def test_uid_leads_back_to_its_id(user_id) -> None:
    assert decode_uid(encode_uid(user_id)) == user_id


def test_uid_is_the_decimal_id_in_unpadded_url_safe_base64_as_in_django() -> None:
    assert [encode_uid(user_id) for user_id in (1, 12, 123)] == ["MQ", "MTI", "MTIz"]


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**32 + 1, 2**63 - 1, 2**63, 10**100])
def test_uid_outside_the_range_of_ids_is_none(number) -> None:
    assert decode_uid(b64(str(number).encode())) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"01", b"0000000001", b"+1", b"1 ", b" 1", b"1\n", b"1\0", b"1_0", b"1.0", b"1e3", b"0x1", b"\xff", b"None"]
    + [digits.encode() for digits in ("١", "１", "²", "1é")],
)
def test_uid_of_anything_but_plain_decimal_digits_is_none(content) -> None:
    assert decode_uid(b64(content)) is None


@pytest.mark.parametrize(
    "uidb64",
    [
        "",
        "=",
        "MQ=",
        "MQ==",
        "MR",
        "MS",
        "M",
        "MQMQM",
        " MQ",
        "MQ ",
        "MQ\n",
        "M Q",
        "MQ\0",
        "\0",
        "ＭＱ",
        "MQé",
        "MQ.",
        "MQ/",
        "MQ+",
        "!!",
        "\ud800",
        "M" * 1_000_000,
    ],
)
def test_uid_in_any_spelling_but_the_canonical_is_none(uidb64) -> None:
    assert decode_uid(uidb64) is None


def test_only_a_token_that_outlived_its_time_has_expired(generator, user) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        token = generator.make_token(user)
        assert generator.verify(user, token) == user
        clock.shift(3601)
        with pytest.raises(TokenExpired):
            generator.verify(user, token)
        with pytest.raises(TokenInvalid):
            generator.verify(user, token[:-1])


@pytest.mark.parametrize(
    ("purpose", "token"),
    [
        ("reset", "c2I72Q.XGNvKse-UGZ-iMxLe55gCiFpEHEZgc86aIHBIUpj91k"),
        ("cancel", "c2I72Q.zUEy4qOgxkcBoHnHIu2HvIpK-k0WzIOuLrl93Ypu6yA"),
    ],
)
def test_links_that_were_emailed_before_an_upgrade_still_work(purpose, token, make_app) -> None:
    """With the same key and state, another version of this code must sign the same."""
    user = User(
        id=42,
        email="alice@example.com",
        password_hash="!unusable",
        security_stamp="a stamp",
        last_login=datetime(2031, 5, 1, 6, 30, tzinfo=UTC),
        is_active=True,
    )
    with make_app(SECRET_KEY=OLD_KEY).app_context(), time_machine.travel(NOW, tick=False):
        assert token_generator(purpose).make_token(user) == token
