"""Every response carries the security headers, and none names the software that serves it.

The tests open pages, redirects, files and errors as a visitor and signed in. gunicorn's own answers to malformed
requests (400, 414, 431) lack the headers: no browser sends such a request, and nginx answers it first.
"""

from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token, path_of
from tests.support.servers import Page
from tests.support.site import Account, MakeSite, Person, Site
from tests.support.site_requests import FORM, send

pytestmark = on_sqlite  # no header depends on the database
PUBLIC = "accounts.example.com"
EVIL = "https://evil.test"
PAGES = {
    "/": 200,
    "/register/": 200,
    "/register/done/": 200,
    "/login/": 200,
    "/logout/": 302,
    "/account/": 302,
    "/password-change/": 302,
    "/password-change/done/": 302,
    "/password-reset/": 200,
    "/password-reset/done/": 200,
    "/password-reset-complete/": 200,
    "/password-reset-confirm/MQ/no-token": 200,
    "/password-reset-cancel/MQ/no-token": 200,
    "/account-secure/MQ/no-token": 200,
    "/.well-known/change-password": 302,
    "/healthz": 200,
    "/metrics": 403,
    "/mailbox/": 404,
    "/no-such-page": 404,
    "/login": 308,
    "/account/sign-out-everywhere/": 405,
    "/static/no-such-file": 404,
}
SIGNED_IN = {"/logout/": 200, "/account/": 200, "/password-change/": 200, "/password-change/done/": 200, "/login/": 302}
FILES = {
    "/static/pico.min.css": "text/css; charset=utf-8",
    "/static/pwreset.css": "text/css; charset=utf-8",
    "/static/pwreset.js": "text/javascript; charset=utf-8",
    "/static/favicon.svg": "image/svg+xml; charset=utf-8",
}


@cache
def owner_of(site: Site) -> tuple[Account, Person]:
    """Return an account on a site, and its owner, signed in."""
    account, owner = site.account(), site.person()
    assert owner.log_in(account).status == 302
    return account, owner


@cache
def walked(site: Site) -> dict[str, Page]:
    """Return an answer of each sort, by what it is."""
    found = {path: site.person().send("GET", path, {}) for path in (*PAGES, *FILES)}
    _, owner = owner_of(site)
    found |= {f"{path} signed in": owner.send("GET", path, {}) for path in SIGNED_IN}
    return found | dict(errors(site)) | dict(links(site))


def errors(site: Site) -> Iterator[tuple[str, Page]]:
    """Yield an error of each sort."""
    person = site.person()
    token = csrf_token(person.get("/login/"))
    yield "400", person.post("/login/", {"email": "x"})
    yield "400 of a host", person.send("GET", "/", {"Host": "evil.test"})
    yield "400 of an origin", person.post("/login/", {"csrf_token": token}, {"Origin": EVIL})
    yield "405", person.send("PUT", "/login/", {})
    yield "413", person.post("/login/", {"email": "x" * 70_000})
    for _ in range(32):  # one more than enough, for the minute may end
        page = person.post("/login/", {"csrf_token": token, "email": "x", "password": "x"})
    yield "429", page
    yield "a form with errors", site.person().post_form("/login/", {}, email="x", password="")
    yield "a form that leads on", site.person().request_reset("nobody@example.com")
    yield "OPTIONS", person.send("OPTIONS", "/login/", {})
    yield "HEAD", person.send("HEAD", "/login/", {})


def links(site: Site) -> Iterator[tuple[str, Page]]:
    """Yield what a link shows that is alive."""
    account = site.account("bob")
    link, person = site.reset_link(account), site.person()
    yield "a link", person.send("GET", path_of(link), {})
    yield "a link opened", person.get(path_of(link))
    yield "a link used", person.choose(link)


def missing(site: Site, name: str, *parts: str) -> dict[str, str | None]:
    """Return the answers in which a header is missing or lacks one of its parts."""
    values = {what: page.headers[name] for what, page in walked(site).items()}
    return {what: value for what, value in values.items() if any(part not in (value or "") for part in parts)}


def policy_of(page: Page) -> dict[str, str]:
    """Return the directives of a page's Content-Security-Policy."""
    directives = (part.strip().partition(" ") for part in page.headers["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in directives}


def test_the_walk_sees_what_it_should(site: Site) -> None:
    """What the other tests look at is what it says."""
    statuses = {what: page.status for what, page in walked(site).items()}
    expected = PAGES | dict.fromkeys(FILES, 200) | {f"{path} signed in": status for path, status in SIGNED_IN.items()}
    assert {path: statuses[path] for path in expected} == expected
    assert all(statuses[what] == int(what[:3]) for what in statuses if what[:3].isdecimal())
    assert [statuses[what] for what in ("a link", "a link opened", "a link used", "HEAD")] == [302, 200, 302, 200]


def test_only_the_sites_own_scripts_and_styles_run(site: Site) -> None:
    """ASVS 3.4.3: nothing inline, nothing from elsewhere, no plug-in and no other base."""
    assert missing(site, "Content-Security-Policy", "default-src 'none'", "base-uri 'none'", "form-action 'self'") == {}
    for what, page in walked(site).items():
        policy = policy_of(page)
        assert policy["script-src"] == policy["style-src"] == "'self'", what
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"} & set(" ".join(policy.values()).split())
        assert policy.get("object-src", policy["default-src"]) == "'none'", what


def test_no_page_may_be_framed(site: Site) -> None:
    """ASVS 3.4.6."""
    assert missing(site, "Content-Security-Policy", "frame-ancestors 'none'") == {}
    assert missing(site, "X-Frame-Options", "DENY") == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Permissions-Policy", "camera=()"),
    ],
)
def test_every_answer_carries(site: Site, name: str, value: str) -> None:
    """ASVS 3.4.4, 3.4.5, 3.4.8."""
    assert missing(site, name, value) == {}


def test_no_page_is_kept_by_anybody(site: Site) -> None:
    """ASVS 14.3.2, 14.2.2, 14.2.5: no cache, no history; a file's name after a page's path makes it no file."""
    pages = {what: page for what, page in walked(site).items() if what not in FILES}
    assert {what for what, page in pages.items() if page.headers["Cache-Control"] != "no-store"} == set()
    assert {what for what, page in pages.items() if page.headers["ETag"] or page.headers["Last-Modified"]} == set()
    _, owner = owner_of(site)
    deceived = [
        owner.send("GET", f"/account/{name}", {}) for name in ("x.css", "%2e%2e/static/x.css", ";x.css", "%00.css")
    ]
    assert {(page.status, page.headers["Cache-Control"]) for page in deceived} == {(404, "no-store")}


def test_whatever_depends_on_the_cookie_says_so(site: Site) -> None:
    """ASVS 14.2.2: a cache that ignores no-store at least keeps visitors apart."""
    pages = {what: page for what, page in walked(site).items() if page.status == 200 and what not in FILES}
    assert {what for what, page in pages.items() if "Cookie" not in (page.headers["Vary"] or "")} == set()


def test_every_answer_says_what_it_is(site: Site) -> None:
    """ASVS 4.1.1: a type with its charset, also for files."""
    types = {what: page.headers["Content-Type"] for what, page in walked(site).items() if what != "/healthz"}
    assert {what: types.pop(what) for what in FILES} == FILES
    assert types.pop("/metrics") == "text/html; charset=utf-8"
    assert set(types.values()) == {"text/html; charset=utf-8"}
    assert walked(site)["/healthz"].headers["Content-Type"] == "application/json"


def test_nothing_says_what_serves_it(site: Site) -> None:
    """ASVS 13.4.6: no version, no framework."""
    for what, page in walked(site).items():
        told = [value for name, value in page.headers.items() if name in {"Server", "X-Powered-By", "Via", "X-Runtime"}]
        assert told == ["gunicorn"], what
        assert not {"Flask", "Werkzeug", "Python", "Traceback"} & set(page.text.replace("/", " ").split()), what


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.test"])
def test_no_other_origin_reads_an_answer(site: Site, method: str, origin: str) -> None:
    """ASVS 3.4.2, 3.5.2."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    page = owner_of(site)[1].send(method, "/login/", asked)
    assert [name for name, _ in page.headers.items() if name.lower().startswith("access-control-")] == []


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "DEBUG", "PUT", "DELETE", "PATCH", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/login/", "/static/pwreset.css", "/no-such-page"])
def test_a_method_that_no_page_has_is_refused(site: Site, method: str, path: str) -> None:
    """ASVS 13.4.4, 4.1.4: TRACE would send a cookie back to a script (cross-site tracing)."""
    reply = send(site, f"{method} {path} HTTP/1.1", "Cookie: secret=do-not-echo", FORM)
    assert reply.status == (404 if path == "/no-such-page" else 405)
    assert "do-not-echo" not in reply.head + reply.text


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_no_header_makes_one_method_another(site: Site, name: str) -> None:
    """ASVS 4.1.4, 3.5.3: a GET stays one, and changes nothing."""
    _, owner = owner_of(site)
    assert owner.send("GET", "/account/sign-out-everywhere/", {name: "POST"}).status == 405
    assert owner.is_signed_in()


def test_a_cookie_is_for_this_site_and_no_script(site: Site) -> None:
    """ASVS 3.3.2, 3.3.4."""
    cookie = site.person().send("GET", "/login/", {}).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


# --- public, over TLS


@pytest.fixture
def public(engine: str, sites: MakeSite) -> Person:
    """Return somebody who comes to a public site through the proxy that ends TLS."""
    site = sites(engine, PUBLIC_URL=f"https://{PUBLIC}")
    return site.person(Host=PUBLIC, **{"X-Forwarded-Proto": "https"})


@pytest.mark.parametrize("path", ["/", "/login/", "/account/", "/no-such-page", "/static/pwreset.css", "/healthz"])
def test_a_browser_comes_back_over_tls_for_a_year(public: Person, path: str) -> None:
    """ASVS 3.4.1."""
    seconds = public.send("GET", path, {}).headers["Strict-Transport-Security"].split(";")[0]
    assert int(seconds.removeprefix("max-age=")) >= 31_536_000


def test_a_public_cookie_is_bound_to_host_and_tls(public: Person) -> None:
    """ASVS 3.3.1, 3.3.3: no other host and no plain page can set or read it."""
    cookie = public.send("GET", "/login/", {}).headers["Set-Cookie"]
    assert cookie.startswith("__Host-")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


@pytest.mark.parametrize(
    "path", ["/mailbox/", "/mailbox/1", "/mailbox/1/html", "/.git/config", "/.env", "/config.py", "/console"]
)
def test_nothing_of_the_development_is_served(public: Person, path: str) -> None:
    """ASVS 13.4.1, 13.4.2, 13.4.7, 15.2.3."""
    assert public.send("GET", path, {}).status == 404


@pytest.mark.parametrize("host", [PUBLIC, "127.0.0.1"])
def test_the_numbers_are_for_nobody_behind_the_proxy(public: Person, host: str) -> None:
    """ASVS 13.4.5."""
    assert public.send("GET", "/metrics", {"Host": host}).status == 403
