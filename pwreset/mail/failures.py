"""How handing a mail over can fail, by whose failure it is. The messages are plain words without an address."""


class MailError(Exception):
    """A mail was not handed over, or nobody knows."""


class ServerUnavailable(MailError):
    """The server took no mail at all: unreachable, untrusted, login refused, sender refused. No mail is to blame."""


class Deferred(MailError):
    """The server, or the line to it, failed on this one mail: it may go through later.

    Args:
        why: in plain words.
        maybe_sent: the whole mail was handed over and only the answer is missing, so it may have arrived.
    """

    def __init__(self, why: str, *, maybe_sent: bool = False) -> None:
        super().__init__(why)
        self.maybe_sent = maybe_sent


class Refused(MailError):
    """The server refused this one mail for good."""
