"""Decides whether a password is easy to guess, by zxcvbn's estimate.

`common.py` catches known passwords; zxcvbn catches what people build from them: repeats, keyboard rows,
names, dates, the site's name with a year.

zxcvbn is imported at the first use: its word lists take 14 MiB, which only setting a password needs.
This module must not call it in any other place, nor twice at once: it keeps its `user_inputs` in a dictionary of
the module, so two threads would judge each other's passwords.
"""

from __future__ import annotations

import re
from threading import Lock
from typing import TYPE_CHECKING

from pwreset.passwords.errors import ValidationError
from pwreset.passwords.similarity import attribute_parts

if TYPE_CHECKING:
    from zxcvbn import _Result

_LONGEST_JUDGED = 72
_LEAST_SCORE = 3
_zxcvbn_lock = Lock()

# zxcvbn tries every combination of the letters these may stand for: a password with all of them took it 2.7 s.
# Up to eight of them cost a third of a second, and so do all of them once the rarest are read as their neighbours.
# Not always, since that would break keyboard rows such as "qwertyuiop[]".
_SUBSTITUTES = frozenset("@4({[<69!1|+7$5")
_MOST_SUBSTITUTES = 8
_RAREST_SUBSTITUTES = str.maketrans("{[<|", "}]>\\")


class StrengthValidator:
    """Refuse a password that zxcvbn gives a score under 3 of 4 (fewer than 10^8 guesses).

    Only the first 72 code points are judged. zxcvbn's cost grows with the square of the length, and 72 are enough
    to be strong: what follows can only add to it.

    Args:
        site_name: the site's name, a word every attacker tries first; may be empty.

    Source: NIST SP 800-63B-4, section 3.1.1.2 (context-specific words, guidance on refusal); ASVS 5.0, 6.2.11.
    """

    def __init__(self, site_name: str) -> None:
        """See the class."""
        self.site_name = site_name

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_too_weak") with zxcvbn's warning and suggestions if it is guessable."""
        if not password:
            # zxcvbn fails on it with IndexError.
            raise ValidationError(self.get_error_message(), code="password_too_weak")
        context = [*attribute_parts(user, "email"), *_site_words(self.site_name)]
        estimate = _estimate(_bound_cost(password[:_LONGEST_JUDGED]), context)
        if estimate["score"] < _LEAST_SCORE:
            feedback = estimate["feedback"]
            advice = [self.get_error_message(), feedback["warning"], *feedback["suggestions"]]
            raise ValidationError(" ".join(filter(None, advice)), code="password_too_weak")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password; zxcvbn's advice follows it."""
        return "This password is easy to guess."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return "Your password can’t be easy to guess, such as a repeated word or a row of keys."


def _site_words(site_name: str) -> list[str]:
    words = re.findall(r"\w+", site_name.lower())
    return [*words, "".join(words), site_name.lower()]


def _bound_cost(password: str) -> str:
    if len(_SUBSTITUTES.intersection(password)) <= _MOST_SUBSTITUTES:
        return password
    return password.translate(_RAREST_SUBSTITUTES)


def _estimate(password: str, user_inputs: list[str]) -> _Result:
    from zxcvbn import zxcvbn  # noqa: PLC0415 (the module's docstring says why)

    with _zxcvbn_lock:
        return zxcvbn(password, user_inputs)
