"""What is stored of a request, and in which words."""

from typing import Any

import pytest
from flask import Flask

from pwreset.request_info import RequestInfo, browser, current_request_info, network_of
from tests.support.app import MakeApp

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"


def client_of(app: Flask, **request: Any) -> RequestInfo:
    with app.test_request_context("/password-reset/", **request):
        return current_request_info()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "Firefox on Android"),
        (f"{WINDOWS} {WEBKIT} Safari/537.36", "Chrome on Windows"),
        (f"{WINDOWS} {WEBKIT} Safari/537.36 Edg/140.0.0.0", "Edge on Windows"),
        (f"{WINDOWS} {WEBKIT} Safari/537.36 OPR/120.0.0.0", "Opera on Windows"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Safari/537.36", "Chrome on ChromeOS"),
        (f"Mozilla/5.0 (Linux; Android 15) {WEBKIT} Mobile Safari/537.36", "Chrome on Android"),
        (
            (
                "Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) "
                "SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"
            ),
            "Samsung Internet on Android",
        ),
        (f"{IPHONE} Version/18.0 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        (f"{IPHONE} CriOS/140.0 Mobile/15E148 Safari/604.1", "Chrome on iPhone"),
        (f"{IPHONE} FxiOS/140.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPhone"),
        (
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
                "Version/18.0 Safari/605.1.15"
            ),
            "Safari on macOS",
        ),
        ("curl/8.14.1", "curl"),
        ("Googlebot/2.1 (+http://www.google.com/bot.html)", None),
        ("Windows", None),
        ("", None),
        (None, None),
    ],
)
def test_a_browser_is_named_in_a_fixed_vocabulary(header: str | None, name: str | None) -> None:
    assert browser(header) == name


def test_a_header_s_own_words_never_come_back() -> None:
    assert browser("Firefox/1 <script> Windows https://evil.example") == "Firefox on Windows"


def test_a_header_is_kept_in_printable_ascii_and_cut(app: Flask) -> None:
    client = client_of(app, headers={"User-Agent": "Fire\x1b[31mfox\x7f\u00e9" + "x" * 500})
    assert client.user_agent is not None
    assert client.user_agent.startswith("Fire?[31mfox??")
    assert len(client.user_agent) == 200


def test_a_request_without_headers_leaves_nothing(app: Flask) -> None:
    client = client_of(app, headers={"User-Agent": ""}, environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert (client.address, client.user_agent, client.language) == ("192.0.2.1", None, None)


@pytest.mark.parametrize(
    ("header", "language"), [("de-CH,de;q=0.9,en;q=0.8", "de-CH"), ("en;q=0.1,fr", "fr"), ("x" * 100, "x" * 35)]
)
def test_the_language_kept_is_the_one_liked_best(header: str, language: str, app: Flask) -> None:
    assert client_of(app, headers={"Accept-Language": header}).language == language


@pytest.mark.parametrize("origin", ["http://127.0.0.1:5001", "http://localhost", "http://[::1]:5000"])
def test_a_local_origin_is_kept_with_its_port(origin: str, app: Flask) -> None:
    assert client_of(app, base_url=origin).origin == origin


def test_in_public_mode_no_origin_is_kept(make_app: MakeApp) -> None:
    app = make_app(
        PUBLIC_URL="https://accounts.example.com",
        SECRET_KEY="kN3-vX8_qL1wZ5tR7yB9mC2dF4gH6jP0",
        EMAIL_HOST="localhost",
        EMAIL_FROM="accounts@example.com",
    )
    assert client_of(app, base_url="https://evil.example").origin is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:201", "192.0.2.1"),
        ("64:ff9b:1::c000:201", "64:ff9b:1::/64"),
        ("no address", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_network_is_what_one_customer_has(address: str | None, network: str) -> None:
    assert network_of(address) == network
