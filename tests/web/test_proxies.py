"""Forwarded headers count only when a trusted proxy sets them."""

import re

import pytest
from flask import Flask

from pwreset.request_info import current_request_info
from tests.support.app import MakeApp, Visitor, add_user
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token
from tests.support.passwords import PASSWORD
from tests.support.public_mode import IN_PUBLIC, PUBLIC_HOST

pytestmark = on_sqlite  # tests/attacks has what reaches a database


def seen_address(app: Flask, forwarded: str, **headers: str) -> str:
    """Return whom the application takes for the client: what the account page says of a login."""
    add_user(app, "alice@example.com", PASSWORD)
    visitor = Visitor(app)
    visitor.client.environ_base["HTTP_X_FORWARDED_FOR"] = forwarded
    visitor.log_in()
    return re.search(r"from ([\d.]+)", visitor.get("/account/").text)[1]


@pytest.mark.parametrize(
    ("proxies", "address"),
    [(0, "127.0.0.1"), (1, "203.0.113.9"), (2, "198.51.100.2"), (3, "192.0.2.1"), (4, "127.0.0.1")],
)
def test_as_many_proxies_are_believed_as_set(make_app: MakeApp, proxies: int, address: str) -> None:
    app = make_app(TRUSTED_PROXIES=proxies)
    assert seen_address(app, "192.0.2.1, 198.51.100.2, 203.0.113.9") == address


@pytest.mark.parametrize("proxies", [0, 1])
def test_a_forwarded_host_is_never_believed(make_app: MakeApp, proxies: int) -> None:
    app = make_app(**IN_PUBLIC, TRUSTED_PROXIES=proxies)
    forged = {"X-Forwarded-Host": PUBLIC_HOST, "Host": "evil.example"}
    assert app.test_client().get("/login/", headers=forged).status_code == 400


@pytest.mark.parametrize(("proxies", "scheme"), [(0, "http"), (1, "https")])
def test_a_forwarded_scheme_is_believed_of_trusted_proxies_only(make_app: MakeApp, proxies: int, scheme: str) -> None:
    visitor = Visitor(make_app(TRUSTED_PROXIES=proxies))
    fields = {"email": "alice@example.com", "csrf_token": csrf_token(visitor.get("/password-reset/"))}
    headers = {"X-Forwarded-Proto": "http, https", "Origin": f"{scheme}://localhost"}
    assert visitor.client.post("/password-reset/", data=fields, headers=headers).status_code == 302


@pytest.mark.parametrize("forwarded", ["", ",", "unknown", "<script>", "'", "x" * 4000, "1.2.3.4:80"])
def test_a_forwarded_address_that_is_none_is_no_error(make_app: MakeApp, forwarded: str) -> None:
    visitor = Visitor(make_app(TRUSTED_PROXIES=1))
    visitor.client.environ_base["HTTP_X_FORWARDED_FOR"] = forwarded
    assert visitor.request_reset("a@example.com").status_code == 302


@pytest.mark.parametrize("forwarded", ["203.0.113.9:51234", "192.0.2.1, 203.0.113.9:443", "203.0.113.9"])
def test_a_port_behind_a_forwarded_address_is_left_out(make_app: MakeApp, forwarded: str) -> None:
    assert seen_address(make_app(TRUSTED_PROXIES=1), forwarded) == "203.0.113.9"


@pytest.mark.parametrize("forwarded", ["[2001:db8::1]:443", "[2001:db8::1]", "2001:db8::1"])
def test_an_ipv6_address_may_come_in_brackets(make_app: MakeApp, forwarded: str) -> None:
    app = make_app(TRUSTED_PROXIES=1)
    app.add_url_rule("/me/", view_func=lambda: str(current_request_info().address))
    assert app.test_client().get("/me/", headers={"X-Forwarded-For": forwarded}).text == "2001:db8::1"


def test_a_forged_address_does_not_open_the_mailbox(make_app: MakeApp) -> None:
    client = make_app(TRUSTED_PROXIES=0).test_client()
    client.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    assert client.get("/mailbox/", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 404
