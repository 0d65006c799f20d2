"""The local mailbox: if no mail server is configured, emails are not sent but kept on this machine as `.eml` files.

Decides where the files are, who may read the folder (its owner) and how many are kept. It exists in local mode only,
because the files contain valid links; `create_app` does not start in public mode without a mail server.
"""

import logging
import os
import re
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Self

from flask import current_app
from flask_mail import Connection, Message, email_dispatched

from pwreset.mail.errors import ServerUnavailable

MAXIMUM_KEPT = 200
HOUR = 3600 * 10**9  # nanoseconds
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptEmail:
    """An email in the mailbox: the file's name without `.eml`, and the parsed message."""

    id: str
    message: EmailMessage

    subject = property(lambda self: str(self.message["Subject"]))
    to = property(lambda self: str(self.message["To"]))
    sender = property(lambda self: str(self.message["From"]))
    date = property(lambda self: self.message["Date"].datetime)
    text = property(lambda self: self._part("plain"))
    html = property(lambda self: self._part("html"))
    has_html = property(lambda self: bool(self.html))

    def _part(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        return str(part.get_content()) if part else ""


class MailboxConnection(Connection):
    """A connection for Flask-Mail that writes into the folder."""

    def __enter__(self) -> Self:
        self.num_emails = 0
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a folder that can't be written can't be pruned either
            _prune()

    def send(self, message: Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Write one email; a second copy of it replaces the first.

        The file's name is the local part of the Message-ID, so it depends on nothing that a visitor sent.

        Raises:
            ServerUnavailable: if the folder can't be written.
        """
        text = message._message().as_bytes(policy=policy.SMTPUTF8.clone(linesep="\n"))  # noqa: SLF001
        try:
            _keep(identity_of(message), text)
        except OSError as error:
            reason = f"the mailbox can't be written to ({error.strerror})"
            raise ServerUnavailable(reason) from None
        self.num_emails += 1
        announce(message)


def _keep(identity: str, text: bytes) -> None:
    folder = mailbox_folder()
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        Path(name).replace(folder / f"{identity}.eml")
    finally:
        Path(name).unlink(missing_ok=True)


def identity_of(message: Message) -> str:
    """Return the name that an email is kept under."""
    return re.sub(r"[^0-9a-z]", "", message.msgId.partition("@")[0].lower())


def announce(message: Message) -> None:
    """Send Flask-Mail's signal for a sent email; a receiver that fails must not make it look unsent."""
    try:
        email_dispatched.send(current_app._get_current_object(), message=message)  # type: ignore[attr-defined]  # noqa: SLF001
    except Exception as error:  # noqa: BLE001 (the receiver's error, which may contain the email)
        logger.error("A receiver of email_dispatched failed (%s)", type(error).__name__)  # noqa: TRY400


def mailbox_folder() -> Path:
    """Return the folder, created on first use with access for its owner only."""
    folder = Path(current_app.instance_path) / "mailbox"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def kept_emails() -> list[KeptEmail]:
    """Return the kept emails, newest first."""
    return [email for path in _newest_first() if (email := kept_email(path.stem))]


def kept_email(identity: str) -> KeptEmail | None:
    """Return one kept email, or None; an identity is lower-case letters and digits, so it can't leave the folder."""
    path = mailbox_folder() / f"{identity}.eml"
    if not re.fullmatch(r"[0-9a-z]{1,64}", identity):
        return None
    try:
        return KeptEmail(identity, message_from_bytes(path.read_bytes(), policy=policy.default))
    except FileNotFoundError:
        return None


def _newest_first() -> list[Path]:
    return sorted(mailbox_folder().glob("*.eml"), key=_written_at, reverse=True)


def _written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # another process pruned it
        return 0


def _prune() -> None:
    abandoned = [path for path in mailbox_folder().glob("*.part") if _written_at(path) < time.time_ns() - HOUR]
    for path in _newest_first()[MAXIMUM_KEPT:] + abandoned:
        path.unlink(missing_ok=True)
