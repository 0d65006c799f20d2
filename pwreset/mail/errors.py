"""The ways in which sending an email can fail, and a sentence for each that states what to do.

Decides the sentence for an error of smtplib, ssl or the socket. The server's own text is not passed on, because it may
contain an address; only its reply code is.
"""

import smtplib
import socket
import ssl

ADVICE_FOR_GMAIL = (
    "Gmail needs an app password: turn on 2-Step Verification, create one at "
    "https://myaccount.google.com/apppasswords and set it as EMAIL_PASS"
)
REPLIES = range(200, 600)


class MailError(Exception):
    """An email was not handed over, or may not have been. The message is plain words without an address."""


class ServerUnavailable(MailError):
    """The server accepts no email at all: it is unreachable or untrusted, or it refused the login or the sender."""


class Deferred(MailError):
    """The server, or the connection to it, failed on this email: a later attempt may succeed.

    Args:
        reason: why, in plain words.
        maybe_sent: whether the email was handed over completely and only the reply is missing, so it may have arrived.
    """

    def __init__(self, reason: str, *, maybe_sent: bool = False) -> None:
        super().__init__(reason)
        self.maybe_sent = maybe_sent


class Refused(MailError):
    """The server refused this email for good."""


def code_of(error: Exception) -> int:
    """Return the server's reply code that an error carries (RFC 5321 section 4.2), or 0.

    An invalid reply is 0 too: one that ends after "25", which smtplib reads as 25, one without a number, and one that
    is too long, which smtplib reports as 500.
    """
    if _text_of(error) == b"Line too long.":
        return 0
    codes = [getattr(error, "smtp_code", 0)]
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [reply[0] for reply in error.recipients.values()]
    return max((code for code in codes if isinstance(code, int) and code in REPLIES), default=0)


def is_sending_limit(error: Exception) -> bool:
    """Whether the account has reached its sending limit, which Gmail reports with a permanent code."""
    replies = error.recipients.values() if isinstance(error, smtplib.SMTPRecipientsRefused) else [(0, _text_of(error))]
    return any(b"5.4.5" in reply for _, reply in replies)


def explain(error: Exception) -> str:
    """Return one plain sentence, without a full stop, for what smtplib raised."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return _explain_login(error)
    if code_of(error):
        return _explain_reply(error)
    return _explain_connection(error)


def _text_of(error: Exception) -> bytes:
    text = getattr(error, "smtp_error", b"")
    return text if isinstance(text, bytes) else str(text).encode()


def _explain_login(error: smtplib.SMTPAuthenticationError) -> str:
    reply = _text_of(error)
    for enhanced in ("5.7.8", "5.7.9"):
        if enhanced.encode() in reply:
            return f"the mail server refused the login ({error.smtp_code} {enhanced}): {ADVICE_FOR_GMAIL}"
    return f"the mail server refused the login ({error.smtp_code}): check EMAIL_USER and EMAIL_PASS"


def _explain_reply(error: Exception) -> str:
    code = code_of(error)
    if is_sending_limit(error):
        return f"the mail account has reached its sending limit ({code})"
    if code == 421:
        return "the mail server is closing for now (421)"
    if isinstance(error, smtplib.SMTPSenderRefused):
        return f"the mail server refused the sender ({code}): check EMAIL_FROM and the account's limits"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"the mail server refused the recipient ({code})"
    if isinstance(error, smtplib.SMTPDataError):
        return f"the mail server refused the email ({code})"
    return f"the mail server answered {code}"


def _explain_connection(error: Exception) -> str:
    table: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (ssl.SSLCertVerificationError, _explain_certificate(error)),
        (ssl.SSLError, "TLS could not be set up: check EMAIL_PORT (587 for EMAIL_USE_TLS, 465 for EMAIL_USE_SSL)"),
        (smtplib.SMTPNotSupportedError, _explain_missing(error)),
        (UnicodeError, "EMAIL_HOST, EMAIL_USER or EMAIL_PASS contains characters that can't be sent to a mail server"),
        (socket.gaierror, "the mail server's name was not found: check EMAIL_HOST and this machine's network (DNS)"),
        (TimeoutError, "the mail server did not answer in time: check EMAIL_HOST, EMAIL_PORT and any firewall"),
        (ConnectionRefusedError, "the mail server refused the connection: check EMAIL_HOST and EMAIL_PORT"),
        ((ConnectionError, smtplib.SMTPServerDisconnected), "the mail server closed the connection"),
        (smtplib.SMTPResponseException, "the mail server's reply was not valid"),
        (smtplib.SMTPRecipientsRefused, "the mail server's reply was not valid"),
    )
    if "timed out" in str(error):  # smtplib turns a timeout while reading into SMTPServerDisconnected
        error = TimeoutError()
    known = (sentence for kind, sentence in table if isinstance(error, kind))
    return next(known, f"the connection to the mail server failed ({type(error).__name__})")


def _explain_certificate(error: Exception) -> str:
    reason = getattr(error, "verify_message", "")
    return f"the mail server's certificate is not trusted ({reason}): check EMAIL_HOST; no login and no email was sent"


def _explain_missing(error: Exception) -> str:
    if "STARTTLS" in str(error):
        return "the mail server offers no STARTTLS, so nothing was sent: check EMAIL_PORT, or set EMAIL_USE_SSL"
    return "the mail server offers no login: unset EMAIL_USER and EMAIL_PASS, or check EMAIL_PORT"
