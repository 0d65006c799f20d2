"""Decides whether a password is too close to what is known of its user.

This module must not know the User model: it reads attributes by name and skips those that aren't there.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from pwreset.passwords.errors import ValidationError
from pwreset.passwords.preparation import prepare

DEFAULT_USER_ATTRIBUTES = ("email",)

# Below this nearly every password is refused; Django draws the same line.
_LEAST_SIMILARITY = 0.1
_VERBOSE_NAMES = {"email": "email address"}


class UserAttributeSimilarityValidator:
    """Refuse a password that resembles an attribute of the user, whole or one of its words.

    Args:
        user_attributes: names of the attributes to compare with; missing and empty ones are skipped.
        max_similarity: the ratio from which a password is refused, 0.1 to 1 (1: only the same characters).

    Raises:
        ValueError: max_similarity is under 0.1.

    Source: Django, django/contrib/auth/password_validation.py, UserAttributeSimilarityValidator; ASVS 5.0, 6.2.11.
    """

    def __init__(self, user_attributes: Sequence[str] = DEFAULT_USER_ATTRIBUTES, max_similarity: float = 0.7) -> None:
        """See the class."""
        if max_similarity < _LEAST_SIMILARITY:
            msg = f"max_similarity must be at least {_LEAST_SIMILARITY}"
            raise ValueError(msg)
        self.user_attributes = user_attributes
        self.max_similarity = max_similarity

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_too_similar") for the first attribute that is too close."""
        for name in self.user_attributes:
            if any(self._is_similar(password.lower(), part) for part in attribute_parts(user, name)):
                message = self.get_error_message() % {"verbose_name": _VERBOSE_NAMES.get(name, name.replace("_", " "))}
                raise ValidationError(message, code="password_too_similar")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password; %(verbose_name)s stands for the attribute's name."""
        return "The password is too similar to the %(verbose_name)s."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return "Your password can’t be too similar to your other personal information."

    def _is_similar(self, password: str, part: str) -> bool:
        # The ratio can't exceed twice the shorter length over both together, so comparing a long password with a
        # short word would be work for nothing.
        shorter, both = min(len(password), len(part)), len(password) + len(part)
        if 2 * shorter / both < self.max_similarity:
            return False
        return SequenceMatcher(a=password, b=part).quick_ratio() >= self.max_similarity


def attribute_parts(user: object | None, name: str) -> list[str]:
    r"""Return the words of an attribute of the user, and the whole of it, to compare a password with.

    Args:
        user: any object, or None.
        name: the attribute's name.

    Returns:
        Prepared and in lower case: the parts between non-word characters (\W+), then the value itself; nothing if
        there is no user, no such attribute, or it isn't text.
    """
    value = getattr(user, name, None)
    if not isinstance(value, str) or not value:
        return []
    lowered = prepare(value).lower()
    return [*filter(None, re.split(r"\W+", lowered)), lowered]
