"""Who sent the present request, in the few words that are kept with a row or shown in a mail.

Decides what is read from a request and how much of it. A browser is described from a fixed vocabulary: whoever asks for
a reset of somebody else's account chooses the header, and must not choose words in the mail.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

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
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: where a network that has no IPv4 sees all of IPv4


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """Who asked: the address on the network, the browser's own header (200 characters), language and local origin."""

    address: str | None = None
    user_agent: str | None = None
    language: str | None = None
    origin: str | None = None


def current_request_info() -> RequestInfo:
    """Describe the sender of the present request."""
    local = current_app.config["PUBLIC_URL"] is None
    return RequestInfo(
        address=_network_address(request.remote_addr or ""),
        user_agent=_printable(request.headers.get("User-Agent", ""), 200),
        language=_printable(request.accept_languages.best or "", 35),
        origin=f"{request.scheme}://{request.host}" if local else None,
    )


def _network_address(text: str) -> str | None:
    # Behind a proxy that is not there, this is whatever the client wrote into a header.
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def current_network() -> str:
    """Return what the limits count by: the network of the present request's client."""
    return network_of(request.remote_addr)


def network_of(address: str | None) -> str:
    """Return the network that one customer of a provider has: an IPv4 address, or 64 bits of an IPv6 address.

    Whoever has an IPv6 address has 2^64 of them (RFC 6177 section 2), and could come from another one each time.

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


def browser(user_agent: str | None) -> str | None:
    """Name browser and system, such as "Firefox on Windows"; None for a header that names no browser we know."""
    name = _first(BROWSERS, user_agent or "")
    system = _first(SYSTEMS, user_agent or "")
    return f"{name} on {system}" if name and system else name


def _first(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((name for mark, name in table if mark in text), None)


def _printable(text: str, length: int) -> str | None:
    # Control characters would forge lines in a log or a terminal.
    return re.sub(r"[^\x20-\x7e]", "?", text)[:length] or None
