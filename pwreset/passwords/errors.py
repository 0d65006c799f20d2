"""Decides how a refused password is reported.

This module must not hold a password: an error's text goes to a page, and may go to a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ValidationError(ValueError):
    """A password was refused, for one reason or for several.

    Args:
        message: the sentence to show, or the errors to join into one.
        code: a name for the reason, for code and tests; an error that joins others is "invalid".

    Attributes:
        messages: every sentence to show, in order.
        code: as given.
        error_list: the single errors, in order; for a single error, itself.

    Source: Django, django/core/exceptions.py, ValidationError, without nesting by field.
    """

    def __init__(self, message: str | Sequence[ValidationError], code: str = "invalid") -> None:
        """See the class."""
        self.code = code
        if isinstance(message, str):
            self.messages = [message]
            self.error_list = [self]
        else:
            self.messages = [text for error in message for text in error.messages]
            self.error_list = [single for error in message for single in error.error_list]
        super().__init__(" ".join(self.messages))
