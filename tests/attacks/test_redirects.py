"""No redirect leads away from the site: not by `next`, not by a path, and not by a header.

Browsers read addresses by the URL standard (WHATWG): they drop tabs and line ends, and take a backslash for a slash and
three slashes for two. So the tests follow each answer as a browser would, to its end.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from secrets import token_hex
from urllib.parse import quote, urlsplit

import pytest

from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token, links_in, path_of
from tests.support.passwords import NEW_PASSWORD
from tests.support.servers import Page
from tests.support.site import Person, Site

EVIL = "evil.test"
# What other systems took for an address of their own.
IN_THE_WILD = [
    f"//{EVIL}",
    f"///{EVIL}",  # CVE-2019-10856, Jupyter
    f"////{EVIL}",
    f"/////{EVIL}/path",  # CVE-2021-23401, Flask-User
    f"\\\\\\{EVIL}",  # CVE-2021-32618, CVE-2021-23385, Flask-Security
    f"\\\\{EVIL}/path",
    f"/\\{EVIL}",  # CVE-2023-49438, Flask-Security-Too
    f"\\/{EVIL}",  # CVE-2023-49438
    f"/\\/{EVIL}",
    f"http:\\\\\\{EVIL}",  # CVE-2014-3730, Django
    f"http:///{EVIL}",
    "http:999999999",  # CVE-2017-7233, Django
    f"https:{EVIL}",
    f"https:/{EVIL}",
    f"http://{{host}}\\@{EVIL}",  # CVE-2016-2512, Django
    f"http://{{host}}@{EVIL}",
    f"http://{{host}}.{EVIL}",
    f"//{{host}}@{EVIL}",
    f"//{EVIL}\\@{{host}}",
    "javascript:alert(1)",  # CVE-2013-6044, Django
    "\njavascript:alert(1)",  # CVE-2015-0220, Django
    "\x08javascript:alert(1)",  # CVE-2015-2317, Django
    "java\tscript:alert(1)",
    "javascript://{host}/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    f"\x08//{EVIL}",
    f"/\t/{EVIL}",
    f"/\n/{EVIL}",
    f"\t//{EVIL}",
    f" //{EVIL}",
    f"/\x00/{EVIL}",
    f"/\x0b/{EVIL}",
    f"\uff0f\uff0f{EVIL}",
    f"/\uff0f{EVIL}",
    "//evil\u3002test",
    f"/\u2028/{EVIL}",
    f"\u2029//{EVIL}",
    f"//{EVIL}%2f..",
    f"//{EVIL}/%2e%2e",
    f"//{EVIL}?{{host}}",
    f"//{EVIL}#{{host}}",
    f"//[::ffff:192.0.2.1]/{EVIL}",
    f"//{EVIL}/" + "a" * 3000,
]
# Within the site, by the standard; what the site makes of them must stay there too.
STRANGE_BUT_OURS = [
    f"/%2f%2f{EVIL}",
    f"/%5c{EVIL}",
    f"/%09/{EVIL}",  # the proxy of a framework once decoded it, and dropped the tab
    f"/%0d%0aLocation:%20//{EVIL}",
    f"/..//{EVIL}",
    f"/.//{EVIL}",
    f"/a/../..//{EVIL}",
    f"/;@{EVIL}",
    f"/@{EVIL}",
    f"/?//{EVIL}",
    f"/#//{EVIL}",
    f"/login?next=//{EVIL}",
    f"/login/?next=//{EVIL}",
    f"/static//{EVIL}",
    f"/http://{EVIL}",
]


@cache
def signed_in(site: Site) -> Person:
    """Return somebody who is signed in and stays so."""
    person = site.person()
    assert person.log_in(site.victim).status == 302
    return person


def at(site: Site, target: str) -> str:
    """Return a target with the site's own host in it, where it has a place for that."""
    return target.replace("{host}", f"127.0.0.1:{site.server.port}")


def where_a_browser_goes(base: str, location: str) -> str:
    """Return the address that a browser opens, by the URL standard (`urljoin` knows only the stricter RFC 3986)."""
    text = re.sub(r"[\t\r\n]", "", location.strip("".join(map(chr, range(33)))))
    head, rest = re.split(r"(?=[?#]|$)", text, maxsplit=1)
    head = re.sub(r"^(https?):/*", r"\1://", head.replace("\\", "/"), flags=re.IGNORECASE)
    if re.match(r"[a-zA-Z][\w+.-]*:", head):
        return head + rest
    scheme, host, path, *_ = urlsplit(base)
    if head.startswith("//"):
        return f"{scheme}://{head.lstrip('/')}{rest}"
    path = head if head.startswith("/") else path.rpartition("/")[0] + "/" + head
    return f"{scheme}://{host}{without_dots(path)}{rest}"


def without_dots(path: str) -> str:
    """Return a path in which each `..` has taken away what stands before it, as a browser sends it."""
    kept: list[str] = []
    for part in path.split("/")[1:]:
        dots = part.lower().replace("%2e", ".")
        if dots == "..":
            del kept[-1:]
        elif dots != ".":
            kept.append(part)
    return "/" + "/".join(kept)


def followed(person: Person, page: Page, path: str) -> Iterator[str]:
    """Return each address that a browser opens after an answer; fail where it leaves the site or goes in circles."""
    url = person.site.url + path
    for _ in range(5):
        if page.headers["Location"] is None:
            assert page.status < 500
            return
        url = where_a_browser_goes(url, page.headers["Location"])
        assert url.startswith(f"{person.site.url}/"), f"led to {url}"
        yield url
        page = person.send("GET", url.removeprefix(person.site.url).partition("#")[0], {})
    pytest.fail(f"still on the way at {url}")


def log_in(person: Person, target: str, *, by_form: bool) -> Page:
    """Log in with a target in the query, or in the form as the page sends it on."""
    path = "/login/" if by_form else f"/login/?next={quote(target, safe='')}"
    fields = {"email": person.site.victim.email, "password": person.site.victim.password}
    fields |= {"next": target} if by_form else {}
    return person.post(path, fields | {"csrf_token": csrf_token(person.get("/login/"))})


# --- next


@on_sqlite  # `next` reaches no database
def test_a_page_that_asks_for_a_login_is_opened_after_it(site: Site) -> None:
    """ASVS 3.7.2: what `next` is for, so that the attacks on it attack something."""
    person = site.person()
    asked = person.send("GET", "/password-change/", {})
    login = asked.headers["Location"]
    assert login == "/login/?next=%2Fpassword-change%2F"
    assert log_in(person, "/password-change/", by_form=False).headers["Location"] == "/password-change/"


@on_sqlite  # `next` reaches no database
@pytest.mark.parametrize("target", IN_THE_WILD)
@pytest.mark.parametrize("by_form", [False, True], ids=["query", "form"])
def test_a_login_leads_nowhere_else(site: Site, target: str, by_form: bool) -> None:
    """CVE-2021-32618, CVE-2023-49438, CVE-2014-3730, CVE-2016-2512 and the others of the list; ASVS 3.7.2."""
    page = log_in(site.person(), at(site, target), by_form=by_form)
    assert (page.status, page.headers["Location"]) == (302, "/account/")


@on_sqlite  # `next` reaches no database
@pytest.mark.parametrize("target", IN_THE_WILD)
def test_the_login_page_carries_no_target_that_leads_away(site: Site, target: str) -> None:
    """CVE-2015-2317: a target that was found good was put into a link, where a browser reads it otherwise."""
    page = site.person().send("GET", f"/login/?next={quote(at(site, target), safe='')}", {})
    assert page.status == 200
    assert 'name="next"' not in page.text
    assert EVIL not in page.text


@on_sqlite  # `next` reaches no database
@pytest.mark.parametrize("target", [*IN_THE_WILD, *STRANGE_BUT_OURS])
def test_who_is_signed_in_is_led_nowhere_else(site: Site, target: str) -> None:
    """CVE-2019-10255: a link to the login page leads on at once where somebody is signed in."""
    path = f"/login/?next={quote(at(site, target), safe='')}"
    assert list(followed(signed_in(site), signed_in(site).send("GET", path, {}), path))


@on_sqlite  # `next` reaches no database
@pytest.mark.parametrize("target", STRANGE_BUT_OURS)
def test_a_strange_path_of_this_site_stays_one(site: Site, target: str) -> None:
    """CVE-2018-14574, CVE-2020-28724: a path in which the site, and not the browser, sees two slashes."""
    person = site.person()
    page = log_in(person, target, by_form=False)
    assert list(followed(person, page, "/login/"))


@on_sqlite  # nobody is looked up
@pytest.mark.parametrize("split", ["\r\n", "\n", "\r", "%0d%0a", "\u560d\u560a", "\x85"])
def test_no_target_adds_a_header(site: Site, split: str) -> None:
    """ASVS 1.2.1, CVE-2019-16254 (WEBrick): a line end in a Location begins another header, or the page itself."""
    cookies = "; ".join(f"{name}={value}" for name, value in signed_in(site).cookies().items())
    target = quote(f"/account/{split}Set-Cookie: evil=1{split}{split}<h1>evil", safe="")
    head = f"GET /login/?next={target} HTTP/1.1\r\nHost: 127.0.0.1:{site.server.port}\r\nCookie: {cookies}\r\n"
    answer = site.raw(f"{head}Connection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 302 ")
    head = answer.partition(b"\r\n\r\n")[0]
    assert not any(b"\r" in line or b"\n" in line for line in head.split(b"\r\n"))  # some take each for a line's end
    assert not re.search(rb"(?mi)^(set-cookie: evil|<h1>evil)", answer)
    assert len(re.findall(rb"(?mi)^location: ", answer)) == 1


# --- Where there is no next


def reset(person: Person, extra: str) -> Page:
    return post(person, "/password-reset/", extra, email=person.site.victim.email)


def register(person: Person, extra: str) -> Page:
    return post(person, "/register/", extra, email=f"new.{token_hex(4)}@example.com")


def log_out(person: Person, extra: str) -> Page:
    person.log_in(person.site.victim)
    return post(person, "/logout/", extra)


def sign_out_everywhere(person: Person, extra: str) -> Page:
    account = person.site.account("elsewhere")
    person.log_in(account)
    csrf = csrf_token(person.get("/account/"))
    return person.post(f"/account/sign-out-everywhere/{extra}", {"csrf_token": csrf, **EVERYWHERE})


def confirm(person: Person, extra: str) -> Page:
    page = person.get(path_of(person.site.reset_link(person.site.account("forgetful"))))
    return post(person, page.path, extra, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)


def cancel(person: Person, extra: str) -> Page:
    account = person.site.account("careful")
    person.site.reset_link(account)
    return post(person, path_of(links_in(person.site.emails_to(account.email)[-1])[1]), extra)


def secure(person: Person, extra: str) -> Page:
    account = person.site.account("robbed")
    person.choose(person.site.reset_link(account))
    return post(person, path_of(person.site.link_for(account.email, 3)), extra)


def change_password(person: Person, extra: str) -> Page:
    account = person.site.account("changing")
    person.log_in(account)
    new = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    return post(person, "/password-change/", extra, old_password=account.password, **new)


EVERYWHERE = dict.fromkeys(("next", "url", "redirect_to", "return_to"), f"https://{EVIL}/")


def post(person: Person, path: str, extra: str, **fields: str) -> Page:
    """Send a page's form with more in its query and its fields."""
    return person.post(path + extra, {**fields, **EVERYWHERE, "csrf_token": csrf_token(person.get(path))})


@on_sqlite  # `next` reaches no database
@pytest.mark.parametrize(
    ("act", "leads_to"),
    [
        (reset, "/password-reset/done/"),
        (register, "/register/done/"),
        (log_out, "/"),
        (sign_out_everywhere, "/login/"),
        (confirm, "/password-reset-complete/"),
        (cancel, "/login/"),
        (secure, "/password-reset/done/"),
        (change_password, "/password-change/done/"),
    ],
)
def test_no_other_form_takes_a_target(site: Site, act: Callable[[Person, str], Page], leads_to: str) -> None:
    """CVE-2021-23385 (the logout), CVE-2021-32618 and CVE-2023-49438 (each form of Flask-Security)."""
    extra = "?" + "&".join(f"{name}={quote(value)}" for name, value in EVERYWHERE.items())
    page = act(site.person(), extra)
    assert (page.status, page.headers["Location"]) == (302, leads_to)


@on_sqlite  # nobody is looked up
@pytest.mark.parametrize("path", ["/", "/register/", "/password-reset/", "/password-reset/done/", "/register/done/"])
def test_a_target_does_not_survive_into_another_page(site: Site, path: str) -> None:
    """ASVS 3.7.2: only the login page knows `next`, and only as long as it is open."""
    person = site.person()
    assert "account" in person.get("/login/?next=/account/%3Fa=b").text
    text = unescape(person.get(f"{path}?next=/account/%3Fa=b").text + person.get("/login/").text)
    assert "a=b" not in text
    assert 'name="next"' not in text


@on_sqlite  # nobody is looked up
@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/change-password",
        f"/.well-known/change-password?next=//{EVIL}",
        f"/.well-known/change-password?url=https://{EVIL}",
        "//.well-known/change-password",
    ],
)
def test_password_managers_are_led_to_this_sites_own_page(site: Site, path: str) -> None:
    """ASVS 3.7.2, for the address of the W3C's "Well-Known URL for Changing Passwords"."""
    answer = site.person().send("GET", path, {"Host": "127.0.0.1:1337", "X-Forwarded-Host": EVIL})
    assert (answer.status, answer.headers["Location"]) == (302, "/password-change/")


# --- Paths


@on_sqlite  # nobody is looked up
@pytest.mark.parametrize(
    "path",
    [
        f"//{EVIL}",
        f"//{EVIL}/login",
        f"///{EVIL}/login",
        f"//{EVIL}/..",
        f"//{EVIL}/%2e%2e/login",
        f"/%2f{EVIL}/login",
        f"/\\{EVIL}/login",
        f"/%5c{EVIL}/login",
        f"/%09/{EVIL}/login",
        f"/login//{EVIL}",
        f"/static//{EVIL}",
        f"//{EVIL}/password-reset-confirm/a/b",
        f"/password-reset-confirm//{EVIL}/b",
        f"/login?next=//{EVIL}",
        f"http://{EVIL}/login",
        f"http://{EVIL}//login",
        "//login",
        "/%2f/login",
        "/login/%0d%0aSet-Cookie:evil=1",
        "/login?%0d%0aSet-Cookie:evil=1",
    ],
)
def test_no_path_is_led_elsewhere(site: Site, path: str) -> None:
    """CVE-2020-28724 (Werkzeug), CVE-2018-14574 (Django), CVE-2024-42353 (WebOb): `//` at the start of a path."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{site.server.port}\r\nConnection: close\r\n\r\n"
    answer = site.raw(request.encode())
    assert answer.partition(b" ")[2][:3] in {b"200", b"308", b"400", b"404"}
    assert b"set-cookie: evil" not in answer.lower()
    for location in re.findall(rb"(?mi)^location: (.*)\r$", answer):
        there = where_a_browser_goes(site.url + "/", location.decode("latin-1"))
        assert urlsplit(there)[:2] == urlsplit(site.url)[:2]


@on_sqlite  # nobody is looked up
@pytest.mark.parametrize("path", ["/login", "/password-reset", "/account"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:1337"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": EVIL, "X-Forwarded-Port": "1337", "X-Forwarded-Prefix": f"//{EVIL}"},
    ],
    ids=["port", "scheme", "https", "host"],
)
def test_the_way_to_a_pages_own_address_follows_no_header(site: Site, path: str, headers: dict[str, str]) -> None:
    """CVE-2011-4139: an absolute redirect, built from the request and kept by a cache, leads everybody there."""
    answer = site.person().send("GET", path, headers)
    there = where_a_browser_goes(site.url + path, answer.headers["Location"] or path)
    assert urlsplit(there)[:2] == urlsplit(site.url)[:2]


# --- The rules of browsers, as the tests above take them


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("/a?b=//c", "http://ours.test/a?b=//c"),
        ("a", "http://ours.test/b/a"),
        ("/..//c", "http://ours.test//c"),
        ("/a/%2E././/c", "http://ours.test//c"),
        ("//evil.test", "http://evil.test"),
        ("///evil.test", "http://evil.test"),
        ("\\\\\\evil.test", "http://evil.test"),
        ("/\\evil.test", "http://evil.test"),
        ("/\t/evil.test", "http://evil.test"),
        (" \x08//evil.test", "http://evil.test"),
        ("https:evil.test", "https://evil.test"),
        ("http:\\\\\\evil.test", "http://evil.test"),
        ("java\tscript:alert(1)", "javascript:alert(1)"),
    ],
)
def test_browsers_are_believed_to_go_where_the_standard_says(location: str, there: str) -> None:
    """WHATWG URL, section 4.4."""
    assert where_a_browser_goes("http://ours.test/b/", location) == there
