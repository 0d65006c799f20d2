"""Decides whether an attacker would try a password early, and which validators a site uses by default.

Three rules: the password resembles the user's address, is in the list of common passwords, or gets a low score from
zxcvbn, which finds what people build from known words: repeats, keyboard rows, names, dates, the site's name.

The list and zxcvbn are loaded at their first use: zxcvbn's word lists take 14 MiB, and a process that only checks
logins needs neither. This module must not use the network: no password, and no part of its hash, leaves the process.
"""

import functools
import gzip
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from threading import Lock

from pwreset.passwords.hashing import prepare
from pwreset.passwords.validation import (
    BaseValidator,
    MaximumLengthValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    PasswordValidator,
    PrintableValidator,
    ValidationError,
)

DEFAULT_PASSWORD_LIST_PATH = Path(__file__).with_name("common-passwords.txt.gz")
"""Django's list; `common-passwords.README.md` names its source."""
DEFAULT_USER_ATTRIBUTES = ("email",)

_VERBOSE_NAMES = {"email": "email address"}
_MINIMUM_SIMILARITY = 0.1  # as in Django: with less, nearly every password is refused
_MINIMUM_SCORE = 3  # of 4: 10^8 guesses or more
_MAXIMUM_SCORED_LENGTH = 72
# zxcvbn tries every combination of the letters that these characters may stand for, which took 2.7 s for a password
# with all of them. With up to eight it takes a third of a second, and also with all of them once the rarest are
# replaced by similar ones. They aren't always replaced, because that would break keyboard rows such as "qwertyuiop[]".
_SUBSTITUTES = frozenset("@4({[<69!1|+7$5")
_MAXIMUM_SUBSTITUTES = 8
_RAREST_SUBSTITUTES = str.maketrans("{[<|", "}]>\\")
# zxcvbn keeps `user_inputs` in a module-level dictionary, so two threads would use each other's.
_zxcvbn_lock = Lock()


class UserAttributeSimilarityValidator(BaseValidator):
    """Refuse a password that resembles an attribute of the user, or one of its words.

    Args:
        user_attributes: names of the attributes to compare with; missing and empty ones are skipped.
        max_similarity: the ratio from which a password is refused, 0.1 to 1 (1: only the same characters).

    Raises:
        ValueError: max_similarity is under 0.1.

    Source: Django, django/contrib/auth/password_validation.py, UserAttributeSimilarityValidator; ASVS 5.0, 6.2.11.
    """

    code = "password_too_similar"
    error_message = "The password is too similar to the %(verbose_name)s."
    help_text = "Your password can’t be too similar to your other personal information."

    def __init__(self, user_attributes: Sequence[str] = DEFAULT_USER_ATTRIBUTES, max_similarity: float = 0.7) -> None:
        if max_similarity < _MINIMUM_SIMILARITY:
            msg = f"max_similarity must be at least {_MINIMUM_SIMILARITY}"
            raise ValueError(msg)
        self.user_attributes = user_attributes
        self.max_similarity = max_similarity

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError for the first attribute that is too similar, with its name in the message."""
        for name in self.user_attributes:
            if any(self._is_similar(password.lower(), part) for part in _attribute_parts(user, name)):
                message = self.get_error_message() % {"verbose_name": _VERBOSE_NAMES.get(name, name.replace("_", " "))}
                raise ValidationError(message, code=self.code)

    def _is_similar(self, password: str, part: str) -> bool:
        # The lengths alone bound the ratio (`real_quick_ratio`), so most pairs need no comparison.
        pair = SequenceMatcher(a=password, b=part)
        return pair.real_quick_ratio() >= self.max_similarity and pair.quick_ratio() >= self.max_similarity


class CommonPasswordValidator(BaseValidator):
    """Refuse a password of the list, in any case, with or without white space.

    Args:
        password_list_path: a list in lower case and UTF-8, one password per line; gzip if it ends in ".gz".

    Source: NIST SP 800-63B-4, section 3.1.1.2 (blocklist); ASVS 5.0, 6.2.4; Django,
    django/contrib/auth/password_validation.py, CommonPasswordValidator.
    """

    code = "password_too_common"
    error_message = "This password is too common."
    help_text = "Your password can’t be a commonly used password."

    def __init__(self, password_list_path: Path = DEFAULT_PASSWORD_LIST_PATH) -> None:
        self.password_list_path = password_list_path

    @property
    def passwords(self) -> frozenset[str]:
        """The passwords of the list; the first use in a process reads the file."""
        return _read_passwords(self.password_list_path)

    def _refuses(self, password: str) -> bool:
        lowered = password.lower()
        return not self.passwords.isdisjoint({lowered.strip(), "".join(lowered.split())})


class StrengthValidator(BaseValidator):
    """Refuse a password that zxcvbn gives a score under 3 of 4 (fewer than 10^8 guesses).

    Only the first 72 code points are scored, because zxcvbn's cost grows with the square of the length. A password
    whose first 72 code points are strong is strong.

    Args:
        site_name: the site's name, which attackers try early; may be empty.

    Source: NIST SP 800-63B-4, section 3.1.1.2 (context-specific words, guidance on refusal); ASVS 5.0, 6.2.11.
    """

    code = "password_too_weak"
    error_message = "This password is easy to guess."
    help_text = "Your password can’t be easy to guess, such as a repeated word or a row of keys."

    def __init__(self, site_name: str) -> None:
        self.site_name = site_name

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError with zxcvbn's warning and suggestions if the score is too low."""
        advice = _advice(password, [*_attribute_parts(user, "email"), *_site_words(self.site_name)])
        if advice is not None:
            raise ValidationError(" ".join(filter(None, [self.get_error_message(), *advice])), code=self.code)


def default_validators(min_length: int = 15, site_name: str = "") -> list[PasswordValidator]:
    """Return the default validators, in the order in which their help texts and complaints are shown.

    Args:
        min_length: of a password, in code points.
        site_name: the site's name, which a password must not be built from.
    """
    return [
        MinimumLengthValidator(min_length),
        MaximumLengthValidator(),
        PrintableValidator(),
        UserAttributeSimilarityValidator(),
        CommonPasswordValidator(),
        NumericPasswordValidator(),
        StrengthValidator(site_name),
    ]


def _attribute_parts(user: object | None, name: str) -> list[str]:
    """Return the words of a user's attribute and all of it, prepared and in lower case; nothing if it isn't text."""
    value = getattr(user, name, None)
    if not isinstance(value, str) or not value:
        return []
    lowered = prepare(value).lower()
    return [*filter(None, re.split(r"\W+", lowered)), lowered]


def _site_words(site_name: str) -> list[str]:
    words = re.findall(r"\w+", site_name.lower())
    return [*words, "".join(words), site_name.lower()]


@functools.cache
def _read_passwords(path: Path) -> frozenset[str]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return frozenset(line.strip() for line in text.splitlines())


def _advice(password: str, user_inputs: list[str]) -> list[str] | None:
    """Return zxcvbn's warning and suggestions for a weak password (either may be empty), None for a strong one."""
    if not password:
        return []  # zxcvbn fails with IndexError
    from zxcvbn import zxcvbn  # noqa: PLC0415 (the module's docstring gives the reason)

    with _zxcvbn_lock:
        estimate = zxcvbn(_bound_cost(password[:_MAXIMUM_SCORED_LENGTH]), user_inputs)
    feedback = estimate["feedback"]
    return None if estimate["score"] >= _MINIMUM_SCORE else [feedback["warning"], *feedback["suggestions"]]


def _bound_cost(password: str) -> str:
    if len(_SUBSTITUTES.intersection(password)) <= _MAXIMUM_SUBSTITUTES:
        return password
    return password.translate(_RAREST_SUBSTITUTES)
