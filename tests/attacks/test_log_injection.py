"""What a client sends cannot forge a log line, control a terminal, or act as HTML, a template or a format string.

The logs are those of a site that records every request (gunicorn's access log, and its debug lines).
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from secrets import token_hex

import pytest

from tests.support.clock import until
from tests.support.databases import on_sqlite
from tests.support.links import Link
from tests.support.pages import text_of
from tests.support.passwords import NEW_PASSWORD
from tests.support.site import Account, MakeSite, Site
from tests.support.site_requests import send

pytestmark = on_sqlite  # a log, a page and an email are the same on both
LOUD = {"GUNICORN_CMD_ARGS": "--access-logfile - --log-level debug"}
# All that moves a terminal's cursor, colours it, or begins a line for some reader: C0, DEL, C1, U+2028, U+2029, bidi.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
QUOTED = r'"(?:[^"\\]|\\.)*"'
LINE = re.compile(
    rf"""\[\d{{4}}-\d\d-\d\d\ [^]]+\]\ \[\d+\]\ \[[A-Z]+\]\ .*      # gunicorn's own
    | \d{{4}}-\d\d-\d\d\ [\d:,]+\ [A-Z]+\ [\w.-]+:\ .*             # the application's
    | [\d.]+\ -\ \S+\ \[[^]]+\]\ {QUOTED}\ \d+\ \S+\ {QUOTED}\ {QUOTED}""",
    re.VERBOSE,
)
TRACEBACK = re.compile(r"\s|Traceback |ValueError: ")
BASIC = b64encode(b"a\nFORGED\x1b[31m:b").decode()
# Each as a request line and headers; what stands after a control character would be a line or a colour.
FORGERIES = {
    "a path": ["GET /x%0d%0aFORGED%1b%5b31m HTTP/1.1"],
    "a path as it is": ["GET /x\x1b[31mFORGED HTTP/1.1"],
    "a path with NEL": ["GET /x\x85FORGED HTTP/1.1"],
    "a path with NUL": ["GET /x\0FORGED HTTP/1.1"],
    "a query": ["GET /?x=%0aFORGED%c2%85%e2%80%a8 HTTP/1.1"],
    "a query as it is": ["GET /?x=\x1b[31mFORGED HTTP/1.1"],
    "a link": ["GET /password-reset-confirm/MQ/x%0aFORGED HTTP/1.1"],
    "a method": ["GET\x1b[31mFORGED / HTTP/1.1"],
    "a version": ["GET / HTTP/1.1\x1b[31mFORGED"],
    "a folded header": ["GET / HTTP/1.1", "User-Agent: a\r\n FORGED"],
    "a header's name": ["GET / HTTP/1.1", "X\x1b[31mFORGED: a"],
    "a quote in a header": ["GET / HTTP/1.1", 'User-Agent: a" 200 1 "-" "FORGED'],
    "a browser": ["GET / HTTP/1.1", "User-Agent: \x1b[31mFORGED"],
    "a browser in C1": ["GET / HTTP/1.1", "User-Agent: \x9b31mFORGED"],
    "a browser with NEL": ["GET / HTTP/1.1", "User-Agent: a\x85FORGED"],
    "a browser with LS": ["GET / HTTP/1.1", "User-Agent: a\xe2\x80\xa8FORGED"],
    "a Referer": ["GET / HTTP/1.1", "Referer: \x1b]0;FORGED\x07"],
    "a Referer in C1": ["GET / HTTP/1.1", "Referer: \x9d0;FORGED\x9c"],
    "a host": ["GET / HTTP/1.1", "Host: a\x1b[31mFORGED"],
    "a language": ["GET / HTTP/1.1", "Accept-Language: \x9b31mFORGED"],
    "a cookie": ["GET / HTTP/1.1", "Cookie: pwreset_session=\x9b31mFORGED"],
    "an address": ["GET / HTTP/1.1", "X-Forwarded-For: \x1b[31mFORGED"],
    "a name": ["GET / HTTP/1.1", f"Authorization: Basic {BASIC}"],
}
PATHS = [
    "%0aFORGED",
    "%0a%20FORGED",
    "%0a%09FORGED",
    "%0aValueError:%20FORGED",
    "%0d%0aFORGED",
    "%1b%5b31mFORGED",
    "%c2%9b31mFORGED",
    "%e2%80%a8FORGED",
    "%e2%80%aeDEGROF",
]
FORMATS = "%s%n%(message)s{0.__class__}{}$" + "{jndi:ldap://127.0.0.1:1/a}"
TEMPLATES = ["{{7*191}}", "${7*191}", "#{7*191}", "{{config}}", "{{''.__class__}}", "{0.__class__}", "%s%n%x", "a'b&c"]
HTML = "\"'><script>alert(1)</script>"


@pytest.fixture(params=["text", "json"])
def loud_site(engine: str, sites: MakeSite, request: pytest.FixtureRequest) -> Site:
    """Return a site that writes every request down, in lines for people or in JSON."""
    return sites(engine, LOG_FORMAT=request.param, **LOUD)


@cache
def victim_of(site: Site) -> Account:
    """Return an account on a site."""
    return site.account("victim")


def assert_honest(site: Site, since: int) -> None:
    """Everything logged since then is complete lines of the expected kind, without control characters."""
    new = site.server.log()[since:]
    lines = [line for line in new.split("\n") if line]
    assert lines
    assert CONTROL.findall(new) == []
    if site.settings["LOG_FORMAT"] == "json":
        assert all(isinstance(json.loads(line), dict) for line in lines)
    else:
        assert [line for line in lines if not LINE.fullmatch(line) and not is_traceback(line)] == []


def is_traceback(line: str) -> bool:
    """Whether a line may follow another in a log for people, with nothing of a client's in it."""
    return TRACEBACK.match(line) is not None and "FORGED" not in line


# --- lines


@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_request_forges_a_line(loud_site: Site, forgery: str) -> None:
    """CVE-2025-48432, CVE-2022-30123, CVE-2025-25184, CVE-2025-27111, ASVS 16.4.1."""
    since = len(loud_site.server.log())
    send(loud_site, *FORGERIES[forgery])
    until(lambda: len(loud_site.server.log()) > since, "a line")
    assert_honest(loud_site, since)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_a_page_that_breaks_forges_a_line(loud_site: Site, path: str) -> None:
    """CVE-2025-48432: what is logged of an error is the path as it was decoded."""
    with broken_pages(loud_site) as link:
        since = len(loud_site.server.log())
        assert send(loud_site, f"GET /{link.page}/{link.uid}/x%20{path} HTTP/1.1").status == 500
        until(lambda: "Exception on" in loud_site.server.log()[since:], "what broke")
    assert_honest(loud_site, since)


@contextmanager
def broken_pages(site: Site) -> Iterator[Link]:
    """Write what no application can read into an account, and return a link to it, whose page breaks."""
    account = victim_of(site)
    link = Link.of(site.reset_link(account))
    site.query("UPDATE users SET last_login = 'infinity' WHERE email = ?", account.email)
    try:
        yield link
    finally:
        site.query("UPDATE users SET last_login = NULL WHERE email = ?", account.email)


@pytest.mark.parametrize("field", ["email", "password", "next", "unknown"])
def test_no_field_of_a_form_is_logged(loud_site: Site, field: str) -> None:
    """CVE-2025-25184, ASVS 16.2.5, 16.4.1: not even the name that somebody logs in with, or what was typed there."""
    person = loud_site.person()
    fields = {
        "email": victim_of(loud_site).email,
        "password": "wrong",
        "next": "/",
        "unknown": "",
        field: "FORGED\r\n\x1b",
    }
    since = len(loud_site.server.log())
    assert person.post_form("/login/", {}, **fields).status == 200
    assert "FORGED" not in loud_site.server.log()[since:]
    assert victim_of(loud_site).email not in loud_site.server.log()


@pytest.mark.parametrize("path", ["/{}", "/?x={}", "/password-reset-confirm/MQ/{}", "/account-secure/MQ/x?x={}"])
def test_a_format_in_a_request_stays_text(loud_site: Site, path: str) -> None:
    """CVE-2021-44228, ASVS 1.3.8, 1.3.10: logged, and redacted where it looks like a link, without being read."""
    since = len(loud_site.server.log())
    send(loud_site, f"GET {path.format(FORMATS)} HTTP/1.1", f"User-Agent: {FORMATS}", f"Referer: {FORMATS}")
    until(lambda: FORMATS in loud_site.server.log()[since:], "the browser's name, as it was sent")
    assert "Logging error" not in loud_site.server.log()
    assert_honest(loud_site, since)


# --- what owner and operator see


def test_events_show_nothing_of_what_a_client_calls_itself(engine: str, sites: MakeSite) -> None:
    """CVE-2021-24657, ASVS 16.4.1, 1.2.1: stored by a stranger, shown to the owner and on the operator's terminal."""
    # Clients without an address share one limit, and on the usual site others of them ask for resets too.
    site = sites(engine, LOG_FORMAT="text", **LOUD)
    account, stranger = site.account(), site.person(address=HTML)
    stranger.headers = {"User-Agent": f"Firefox/1 (Windows) {HTML} \x9b31m\x85"}
    stranger.log_in(account, "wrong")
    assert stranger.request_reset(account.email).status == 302
    mail = site.wait_for_email(account.email, 2)
    owner = site.person()
    owner.log_in(account)
    page, listed = owner.get("/account/").text, site.flask("users", "events", account.email).stdout
    assert "Failed login" in page and "Failed login  Firefox on Windows" in listed
    for shown in (page, listed, text_of(mail), mail.as_string()):
        assert "alert(1)" not in shown
    assert CONTROL.findall(listed) == []


# --- templates and HTML


@pytest.mark.parametrize("local", TEMPLATES)
def test_an_address_is_no_template(site: Site, local: str) -> None:
    """ASVS 1.3.7, 1.2.1: a name in an email was one (HackerOne 125980); what is a valid address shows as it is."""
    email = f"{local}.{token_hex(4)}@example.com"
    person = site.person()
    page = person.submit("/register/", email=email)
    assert (page.status, escaped(email) in person.get("/register/done/").text) == (302, True)
    mail = site.wait_for_email(email)
    assert email in text_of(mail) and escaped(email) in mail.get_body(("html",)).get_content()
    assert person.choose(site.link_for(email)).status == 302
    person.log_in(Account(email, NEW_PASSWORD))
    assert escaped(email) in person.get("/account/").text


@pytest.mark.parametrize("words", ["{{7*191}}", "{%print(7*191)%}", "${7*191}", HTML])
@pytest.mark.parametrize("path", ["/login/", "/register/", "/password-reset/"])
def test_what_is_typed_wrong_is_shown_as_text(site: Site, path: str, words: str) -> None:
    """ASVS 1.2.1, 1.3.7."""
    fields = {"email": f"{words}@", "password": words, "next": f"/{words}", "remember": words}
    page = site.person().post_form(path, {}, **fields)
    assert page.status == 200
    assert "1337" not in page.text and "<script>alert" not in page.text
    assert f'value="{escaped(words)}@"' in page.text


def escaped(text: str) -> str:
    """Return text as it is written into a page."""
    return (
        text.replace("&", "&amp;").replace('"', "&#34;").replace("'", "&#39;").replace("<", "&lt;").replace(">", "&gt;")
    )


@pytest.mark.parametrize("words", ["{{7*191}}", HTML.replace(" ", "")])
@pytest.mark.parametrize(
    "line", ["GET /{}", "GET /login/?next=/{}", "GET /password-reset-confirm/{}/{}", "{} /", "GET /{}\xff", "GET / {}"]
)
def test_what_is_asked_for_is_no_page(site: Site, line: str, words: str) -> None:
    """ASVS 1.2.1, 1.3.7, 16.5.1: nor what gunicorn itself answers to a request that is none."""
    reply = send(site, f"{line.format(words, words)} HTTP/1.1", f"Referer: {words}", f"X-Forwarded-Host: {words}")
    assert reply.status in {200, 400, 404}
    assert "1337" not in reply.text and "<script>alert" not in reply.text
