"""Real nginx with the project's own site file, and visitors who come to it over TLS from different addresses.

It decides what is replaced in `deploy/nginx.conf` (names, ports, paths; every replacement must find its text) and the
main file around it, which is Debian's with more logging. It asserts nothing about pages.
"""

import shutil
import socket
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from http.client import HTTPConnection, HTTPSConnection
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.clock import PATIENCE
from tests.support.servers import ROOT, Browser, Page, Server, _EveryAnswer, free_port

SITE = ROOT / "deploy" / "nginx.conf"
NAME = "accounts.example.test"
PROGRAM = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
MISSING = "There is no nginx. Install it with: sudo apt-get install nginx-light"
RUN = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
MAIN = """
daemon off;
pid {folder}/nginx.pid;
worker_processes 1;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    gzip on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Nginx(Server):
    """nginx with the project's site file, for accounts.example.test.

    Args:
        folder: a folder of its own is made in it.
        upstream: the port of what it passes requests on to.
        changes: more text to exchange in the site file.
        settings: of its environment; it reads none.
    """

    def __init__(
        self, folder: Path, upstream: int, changes: Mapping[str, str] | None = None, **settings: object
    ) -> None:
        super().__init__(folder, **settings)
        self.folder = folder / f"nginx-{self.port}"
        self.plain_port, self.url = free_port(), f"https://{NAME}"
        self._changes = self._names_ports_and_paths(upstream) | (changes or {})

    def command(self) -> Sequence[str]:
        """Return what follows `python`, which makes way for nginx."""
        if PROGRAM is None:
            pytest.skip(MISSING)
        self.folder.mkdir()
        (self.folder / "site.conf").write_text(exchanged(SITE.read_text(encoding="utf-8"), self._changes))
        (self.folder / "nginx.conf").write_text(MAIN.format(folder=self.folder))
        _certificate().private_key_and_cert_chain_pem.write_to_path(str(self.folder / "certificate.pem"))
        return "-c", RUN, PROGRAM, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"

    def logged(self) -> str:
        """Return all that is in its logs."""
        return self.log() + "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def _names_ports_and_paths(self, upstream: int) -> dict[str, str]:
        # The IPv6 addresses become ports as well: a machine of tests may have none.
        paths = "/etc/letsencrypt/live/accounts.example.com"
        return {
            f"{paths}/fullchain.pem": f"{self.folder}/certificate.pem",
            f"{paths}/privkey.pem": f"{self.folder}/certificate.pem",
            "/var/log/nginx/": f"{self.folder}/",
            "accounts.example.com": NAME,
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen [::]:80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "listen [::]:443 ssl;": f"listen 127.0.0.1:{free_port()} ssl;",
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
        }

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self} ended:\n{self.log()}"
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0


class Remote(Browser):
    """A person who comes from an address of their own.

    Args:
        server: whom they visit.
        address: of theirs, in 127.0.0.0/8.
        headers: they send with every request.
    """

    def __init__(self, server: Server, address: str = "127.0.0.9", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(server)
        self.headers = dict(headers or {})
        route = _Route(server.port, address)
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies, _EveryAnswerToo, route)

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Page:
        """Send one request and return the answer, whatever its status."""
        return super().send(method, path, self.headers | headers, body)


class _EveryAnswerToo(_EveryAnswer):
    https_response = _EveryAnswer.http_response


class _Route(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Leads every name to one port of this machine, and comes from a given address."""

    def __init__(self, port: int, source: str) -> None:
        super().__init__(context=client_context())
        self._addresses = ("127.0.0.1", port), (source, 0)

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._plain, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._secure, request)

    def _plain(self, host: str, **_: object) -> HTTPConnection:
        connection = HTTPConnection(host)
        connection.sock = self._connected()
        return connection

    def _secure(self, host: str, **_: object) -> HTTPConnection:
        connection = HTTPSConnection(host, context=client_context())
        connection.sock = client_context().wrap_socket(self._connected(), server_hostname=connection.host)
        return connection

    def _connected(self) -> socket.socket:
        target, source = self._addresses
        return socket.create_connection(target, PATIENCE, source)


def exchanged(text: str, changes: Mapping[str, str]) -> str:
    """Return a text with parts exchanged, each of which must be there."""
    for old, new in changes.items():
        assert old in text, f"deploy/nginx.conf has no {old!r}"
        text = text.replace(old, new)
    return text


@cache
def client_context() -> ssl.SSLContext:
    """Return a client context that trusts the tests' authority and nothing else."""
    return ssl.create_default_context(cadata=_authority().cert_pem.bytes().decode())


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _certificate() -> trustme.LeafCert:
    return _authority().issue_cert(NAME, "localhost")
