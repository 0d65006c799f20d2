"""Where the current request came from, as outbox rows and security events store it and emails show it.

Browsers are described in our own words: a stranger who requests a reset for another person's account chooses the
User-Agent header, and must not be able to put text into the email.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from flask import current_app, request

BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
)
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: how a network without IPv4 reaches IPv4 addresses


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """Where a request came from.

    Attributes:
        address: the client's IP address.
        user_agent: the User-Agent header, at most 200 characters.
        language: the preferred language of the Accept-Language header.
        origin: in local mode, the origin that the form was served from.
    """

    address: str | None = None
    user_agent: str | None = None
    language: str | None = None
    origin: str | None = None


def current_request_info() -> RequestInfo:
    """Return where the current request came from."""
    local = current_app.config["PUBLIC_URL"] is None
    return RequestInfo(
        address=_network_address(request.remote_addr or ""),
        user_agent=_printable(request.headers.get("User-Agent", ""), 200),
        language=_printable(request.accept_languages.best or "", 35),
        origin=f"{request.scheme}://{request.host}" if local else None,
    )


def _network_address(text: str) -> str | None:
    # With TRUSTED_PROXIES set and no proxy in front, this is any text that the client sent in a header.
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def current_network() -> str:
    """Return the network of the current request's client; the rate limits count requests by it."""
    return network_of(request.remote_addr)


def network_of(address: str | None) -> str:
    """Return the network of one customer of a provider: an IPv4 address, or the first 64 bits of an IPv6 address.

    Every customer with IPv6 has 2^64 addresses (RFC 6177 section 2), and could use another one each time.

    Args:
        address: as in `RequestInfo`; IPv4 written as IPv6 (RFC 4291 section 2.5.5.2, RFC 6052) is the IPv4 address.
    """
    known = _network_address(address or "")
    if known is None:
        return "unknown"
    ip = ip_address(known)
    if ip.version == 4:
        return known
    if ip in NAT64:
        return str(ip_address(int(ip) & 0xFFFFFFFF))
    return str(ip.ipv4_mapped or ip_network((int(ip) >> 64 << 64, 64)))


def host_name() -> str:
    """Return the host that the request names, without a port; empty if it is not valid."""
    try:
        parts = urlsplit(f"//{request.host}")
        _ = parts.port  # raises ValueError if it is not a port, such as `80:80`
    except ValueError:
        return ""
    return parts.hostname or ""


def browser(user_agent: str | None) -> str | None:
    """Return browser and system, such as "Firefox on Windows", or None if the header names no known browser."""
    name = _first(BROWSERS, user_agent or "")
    system = _first(SYSTEMS, user_agent or "")
    return f"{name} on {system}" if name and system else name


def _first(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((name for mark, name in table if mark in text), None)


def _printable(text: str, length: int) -> str | None:
    # Control characters would forge lines in a log or a terminal.
    return re.sub(r"[^\x20-\x7e]", "?", text)[:length] or None
