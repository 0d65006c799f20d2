"""`next`: after a login the browser stays on this site, whatever the link contains."""

from urllib.parse import quote

import pytest

from pwreset.users.views import safe_next
from tests.support.app import Visitor
from tests.support.pages import csrf_token
from tests.support.passwords import PASSWORD

EVIL = [
    "",
    "evil.example",
    "account/",
    "./account/",
    "../account/",
    "?a=b",
    "#top",
    "//evil.example",
    "///evil.example",
    "////evil.example/%2f..",
    "//evil.example/account/",
    "//user@evil.example",
    "//user:pass@evil.example:443/",
    "//[::1]",
    "//[",
    "/\\evil.example",
    "/\\/evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/account/\\evil",
    "/\tevil.example",
    "/\t/evil.example",
    "\t//evil.example",
    "/\n/evil.example",
    "/\r\n/evil.example",
    "/account/\r\nSet-Cookie: a=b",
    "/account/\n",
    "/\x00/evil.example",
    "/\x01/evil.example",
    "/\x0b/evil.example",
    "/\x1f/evil.example",
    "/\x7f/evil.example",
    " //evil.example",
    " /account/",
    "\u00a0//evil.example",
    "http://evil.example",
    "https://evil.example/account/",
    "HTTPS://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "http://localhost/account/",
    "http://localhost@evil.example/",
    "http://localhost.evil.example/",
    "https://localhost:pass@evil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "javascript://localhost/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "mailto:a@evil.example",
    "ftp://evil.example",
    "%2f%2fevil.example",
    "%5cevil.example",
    "/\u2044evil.example",
    "/\uff0fevil.example",
    "\uff0f\uff0fevil.example",
    "/\u3002evil.example",
    "//evil\u3002example",
    "/account/\u202e",
    "/\u2028/evil.example",
    "/" + "a" * 2000,
    "/" + "a" * 20000,
]
GOOD = [
    "/",
    "/account/",
    "/password-change/",
    "/account/?a=b&c=d",
    "/account/?next=//evil.example",
    "/account/#part",
    "/a//b",
    "/a:b@c",
    "/%2f%2fevil.example",
    "/%09/evil.example",
    "/@evil.example",
    "/account/ with space",
    "/" + "a" * 1999,
]


def log_in_with(visitor: Visitor, target: str):
    """Log in by a link with `next`, in the way the page sends it on."""
    token = csrf_token(visitor.get("/login/"))
    fields = {"email": "alice@example.com", "password": PASSWORD, "csrf_token": token}
    return visitor.client.post(f"/login/?next={quote(target)}", data=fields)


@pytest.mark.parametrize("target", EVIL)
def test_a_target_that_could_leave_the_site_is_dropped(target: str) -> None:
    assert safe_next(target) is None


@pytest.mark.parametrize("target", EVIL[7::6])
def test_a_login_never_leaves_the_site(alice: int, visitor: Visitor, target: str) -> None:
    answer = log_in_with(visitor, target)
    assert (answer.status_code, answer.location) == (302, "/account/")


def test_the_form_carries_no_target_that_leaves_the_site(visitor: Visitor) -> None:
    pages = {target: visitor.get(f"/login/?next={quote(target)}") for target in EVIL}
    assert {page.status_code for page in pages.values()} == {200}
    assert [target for target, page in pages.items() if 'name="next"' in page.text] == []


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "/\\evil.example"])
def test_who_is_logged_in_is_not_led_away_either(alice: int, visitor: Visitor, target: str) -> None:
    visitor.log_in()
    assert visitor.get(f"/login/?next={quote(target)}").location == "/account/"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "/\\evil.example"])
def test_a_target_in_the_body_is_judged_too(alice: int, visitor: Visitor, target: str) -> None:
    assert visitor.log_in(next=target).location == "/account/"


@pytest.mark.parametrize("target", GOOD)
def test_a_path_of_this_site_is_kept(target: str) -> None:
    assert safe_next(target) == target


@pytest.mark.parametrize("target", ["/password-change/", "/account/?a=b&c=d", "/%09/evil.example", "/a//b"])
def test_a_login_goes_on_to_a_path_of_this_site(alice: int, visitor: Visitor, target: str) -> None:
    answer = log_in_with(visitor, target)
    assert answer.location == target


def test_the_target_survives_a_wrong_password(alice: int, visitor: Visitor) -> None:
    page = visitor.submit("/login/?next=/password-change/", email="alice@example.com", password="wrong")
    assert '<input type="hidden" name="next" value="/password-change/">' in page.text


def test_the_target_is_escaped_on_the_page(visitor: Visitor) -> None:
    page = visitor.get("/login/?next=" + quote('/"><b>hello</b>'))
    assert 'value="/&#34;&gt;&lt;b&gt;hello&lt;/b&gt;"' in page.text
    assert "<b>hello</b>" not in page.text
