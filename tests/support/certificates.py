"""TLS certificates for the test servers, right and wrong ones, from an authority that only the tests trust."""

import datetime as dt
import ssl
from functools import cached_property
from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1")


class Authority:
    """A certificate authority, and server contexts with certificates that are right or wrong."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def ca_pem_path(self, tmp: Path) -> Path:
        """Write this authority's certificate into the folder and return the file's path."""
        path = tmp / "ca.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path

    def client_context(self) -> ssl.SSLContext:
        """A client context that trusts this authority and nothing else."""
        return ssl.create_default_context(cadata=self._ca.cert_pem.bytes().decode("ascii"))

    @cached_property
    def good(self) -> ssl.SSLContext:
        """A valid certificate for localhost and 127.0.0.1."""
        return _server_context(self._ca.issue_cert(*NAMES))

    @cached_property
    def wrong_host(self) -> ssl.SSLContext:
        """A trusted certificate for another host."""
        return _server_context(self._ca.issue_cert("mail.example.net"))

    @cached_property
    def expired(self) -> ssl.SSLContext:
        """A trusted certificate for the right names that ended long ago."""
        first, last = dt.datetime(2001, 1, 1, tzinfo=dt.UTC), dt.datetime(2002, 1, 1, tzinfo=dt.UTC)
        return _server_context(self._ca.issue_cert(*NAMES, not_before=first, not_after=last))

    @cached_property
    def self_signed(self) -> ssl.SSLContext:
        """A certificate that vouches for itself and that nobody trusts."""
        stranger = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with trustme.Blob(stranger.private_key_pem.bytes() + stranger.cert_pem.bytes()).tempfile() as path:
            context.load_cert_chain(path)
        return context

    @cached_property
    def untrusted(self) -> ssl.SSLContext:
        """A certificate for the right names from an authority that nobody trusts."""
        return _server_context(trustme.CA().issue_cert(*NAMES))


def _server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
