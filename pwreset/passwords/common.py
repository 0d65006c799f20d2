"""Decides whether a password is one that many people use, from a list.

The list is Django's; `common-passwords.README.md` names its source. It is read when the first password is
validated, once per process: a worker that only answers logins never holds it.

This module must not reach the network: a password, or a part of its hash, is nobody else's business.
"""

import functools
import gzip
from pathlib import Path

from pwreset.passwords.errors import ValidationError

DEFAULT_PASSWORD_LIST_PATH = Path(__file__).with_name("common-passwords.txt.gz")


class CommonPasswordValidator:
    """Refuse a password of the list, in any case, with or without white space.

    Args:
        password_list_path: a list in lower case and UTF-8, one password a line; gzip if it ends in ".gz".

    Source: NIST SP 800-63B-4, section 3.1.1.2 (blocklist); ASVS 5.0, 6.2.4; Django,
    django/contrib/auth/password_validation.py, CommonPasswordValidator.
    """

    def __init__(self, password_list_path: Path = DEFAULT_PASSWORD_LIST_PATH) -> None:
        """See the class."""
        self.password_list_path = password_list_path

    @property
    def passwords(self) -> frozenset[str]:
        """The passwords of the list; the first use in a process reads the file."""
        return _read_passwords(self.password_list_path)

    def validate(self, password: str, user: object | None = None) -> None:
        """Raise ValidationError ("password_too_common") if the password is in the list."""
        lowered = password.lower()
        if not self.passwords.isdisjoint({lowered.strip(), "".join(lowered.split())}):
            raise ValidationError(self.get_error_message(), code="password_too_common")

    def get_error_message(self) -> str:
        """Return the sentence for a refused password."""
        return "This password is too common."

    def get_help_text(self) -> str:
        """Return the sentence to show beside the field."""
        return "Your password can’t be a commonly used password."


@functools.cache
def _read_passwords(path: Path) -> frozenset[str]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return frozenset(line.strip() for line in text.splitlines())
