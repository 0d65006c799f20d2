"""No request chooses where an emailed link leads or who sends the email: only PUBLIC_URL and EMAIL_FROM do.

Each attack requests a reset for somebody else and names a host, port, scheme or path of the attacker, in the ways that
made other systems email it to the victim. Either the request is refused and nobody is emailed, or the email is correct.
"""

import re
from secrets import token_hex
from urllib.parse import quote

import pytest

from tests.support.databases import on_sqlite
from tests.support.pages import links_in, path_of
from tests.support.servers import Page
from tests.support.site import MakeSite, Site
from tests.support.site_requests import filled_in, post
from tests.support.smtp import Record

# A site where every email was caused by the test at hand.
SITE_SETTINGS = {"SITE_NAME": "Example", "OUTBOX_POLL_SECONDS": 0.05}
pytestmark = on_sqlite  # PUBLIC_URL is no row
SENDER = "accounts@example.com"
PUBLIC = "accounts.example.com"
EVIL = "evil.test"
PAGES_OF_A_RESET = ["password-reset-confirm", "password-reset-cancel"]
# Everything at once that is no reason to refuse a request.
POISON = {
    "Host": "127.0.0.1:1337",
    "Forwarded": f"for={EVIL};host={EVIL};proto=javascript",
    "Referer": f"https://{EVIL}/",
    "X-Forwarded-Host": EVIL,
    "X-Forwarded-Port": "1337",
    "X-Forwarded-Prefix": f"//{EVIL}",
    "X-Forwarded-Proto": "javascript",
}
FORWARDED_HOSTS = [
    ("Forwarded", f"host={EVIL}"),
    ("Forwarded", f'for=192.0.2.1;by={EVIL};host="{EVIL}:81";proto=https'),
    ("X-Forwarded-Host", EVIL),
    ("X-Forwarded-Host", f"{EVIL}, 127.0.0.1"),
    ("X-Forwarded-Host", f"127.0.0.1, {EVIL}"),
    ("X-Forwarded-Server", EVIL),
    ("X-Host", EVIL),
    ("X-HTTP-Host-Override", EVIL),
    ("X-Original-Host", EVIL),
    ("Referer", f"https://{EVIL}/password-reset/"),
]
FORWARDED_PARTS = [
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Proto", "javascript"),
    ("X-Forwarded-Proto", f"http://{EVIL}/?"),
    ("X-Forwarded-Protocol", "ssl"),
    ("X-Forwarded-Ssl", "on"),
    ("X-Forwarded-Scheme", "https"),
    ("X-Forwarded-Port", "1337"),
    ("X-Forwarded-Prefix", f"//{EVIL}"),
    ("X-Script-Name", f"//{EVIL}"),
]


@pytest.fixture
def open_site(engine: str, sites: MakeSite) -> Site:
    """Return a site that trusts no proxy, where everybody has one address."""
    return sites(engine, **SITE_SETTINGS, TRUSTED_PROXIES=0, RATELIMIT_ENABLED="false")


def request_reset(site: Site, **headers: str) -> tuple[Page, list[Record]]:
    """Ask for the victim's reset with more headers; return the answer and the emails it caused."""
    person, victim, answers = site.person(), site.victim, list[Page]()
    site.let_an_hour_pass()
    mails = site.emails_caused_by(lambda: answers.append(person.request_reset(victim.email, **headers)))
    return answers[0], mails


def request_reset_raw(site: Site, *head: str) -> tuple[int, list[Record]]:
    """Ask for the victim's reset under a head of one's own; return the status and the emails it caused."""
    person, victim, statuses = site.person(), site.victim, list[int]()
    site.let_an_hour_pass()
    head = tuple(line.format(port=site.server.port) for line in head)
    mails = site.emails_caused_by(
        lambda: statuses.append(person.post_raw("/password-reset/", *head, email=victim.email))
    )
    return statuses[0], mails


def assert_honest(site: Site, mail: Record, pages: list[str], url: str | None = None) -> None:
    """Hold that an email is ours and leads only to us: its links, to these pages in this order, and its headers."""
    url = url or site.url
    parts = [part.get_content() for part in mail.message.walk() if part.get_content_maintype() == "text"]
    assert len(parts) == 2
    for part in parts:
        assert set(re.findall(r"(?:\w+:)?//[^/\s\"'<>]*", part)) == {url}
        assert EVIL not in part
    assert [path_of(link).split("/")[1] for link in links_in(mail.message)] == pages
    assert all(link.startswith(f"{url}/") for link in links_in(mail.message))
    assert (mail.mail_from, mail.message["From"]) == (SENDER, SENDER)
    assert mail.message["Message-ID"].endswith("@example.com>")
    assert not {"reply-to", "return-path", "sender"} & {name.lower() for name in mail.message}


def assert_reset_is_honest(site: Site, mails: list[Record]) -> None:
    """Hold that one honest reset went to the victim, and nothing to anybody else."""
    [mail] = mails
    assert mail.rcpt_tos == [site.victim.email]
    assert_honest(site, mail, PAGES_OF_A_RESET)


# --- Host


@pytest.mark.parametrize(
    "host",
    [
        EVIL,
        f"{EVIL}:{{port}}",
        f"127.0.0.1.{EVIL}",
        f"127.0.0.1,{EVIL}",
        f"127.0.0.1 {EVIL}",
        f"127.0.0.1\t{EVIL}",
        f"127.0.0.1/{EVIL}",
        f"127.0.0.1?{EVIL}",
        f"127.0.0.1#{EVIL}",
        f"127.0.0.1\\{EVIL}",
        f"{EVIL}/127.0.0.1",
        f"{EVIL}#127.0.0.1",
        "127.0.0.1.",
        "localhost:{port}",
        "[::1]:{port}",
    ],
)
def test_another_host_is_refused(site: Site, host: str) -> None:
    """CVE-2011-4139, CVE-2013-4752, CVE-2017-12161, CVE-2020-10966, CVE-2025-43931 (an application like this one)."""
    answer, mails = request_reset(site, Host=host.format(port=site.server.port))
    assert (answer.status, mails) == (400, [])
    assert EVIL not in answer.text


@pytest.mark.parametrize(
    "host",
    [
        f"127.0.0.1:{{port}}@{EVIL}",
        f"127.0.0.1:random@{EVIL}",
        f"127.0.0.1:80@{EVIL}:81",
        f"127.0.0.1\\@{EVIL}",
        f"{EVIL}@127.0.0.1:{{port}}",
        f"user:{EVIL}@127.0.0.1:{{port}}",
    ],
)
def test_a_user_in_the_host_is_refused(site: Site, host: str) -> None:
    """CVE-2012-4520: Django took the part before the `@` for the host, and emailed the part behind it."""
    answer, mails = request_reset(site, Host=host.format(port=site.server.port))
    assert (answer.status, mails) == (400, [])


@pytest.mark.parametrize(
    "port",
    [
        EVIL,
        f"{{port}}:{EVIL}",
        f"{{port}}.{EVIL}",
        f"'<a href=\"//{EVIL}/?",  # dangling markup, in an HTML email
        "-1",
        "65536",
        "",
    ],
)
def test_a_port_that_is_none_is_refused(site: Site, port: str) -> None:
    """CVE-2012-4520: what stands behind the colon of the Host header came into the link as well."""
    answer, mails = request_reset(site, Host="127.0.0.1:" + port.format(port=site.server.port))
    assert (answer.status, mails) == (400, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1337", "127.0.0.1:80", "127.0.0.1:443"])
def test_a_link_never_follows_the_port_of_the_host(site: Site, host: str) -> None:
    """CVE-2012-4520: another port of the same host may be somebody else's."""
    answer, mails = request_reset(site, Host=host)
    assert (answer.status, answer.headers["Location"]) == (302, "/password-reset/done/")
    assert_reset_is_honest(site, mails)


# --- The request line, and what Host there is beside it


@pytest.mark.parametrize(
    "head",
    [
        (f"POST http://{EVIL}/password-reset/ HTTP/1.1", "Host: 127.0.0.1:{port}"),
        (f"POST http://127.0.0.1@{EVIL}/password-reset/ HTTP/1.1", "Host: 127.0.0.1:{port}"),
        (f"POST evil://{EVIL}/password-reset/ HTTP/1.1", "Host: 127.0.0.1:{port}"),
        ("POST /password-reset/ HTTP/1.0",),
        ("POST /password-reset/ HTTP/1.0", f"X-Forwarded-Server: {EVIL}"),
    ],
)
def test_email_never_follows_the_name_that_the_server_goes_by(site: Site, head: tuple[str, ...]) -> None:
    """CVE-2017-8295: WordPress made its sender, and so the return path, of SERVER_NAME."""
    status, mails = request_reset_raw(site, *head)
    assert status == 302
    assert_reset_is_honest(site, mails)


@pytest.mark.parametrize(
    "head",
    [
        ("Host: 127.0.0.1:{port}", f"Host: {EVIL}"),
        (f"Host: {EVIL}", "Host: 127.0.0.1:{port}"),
        ("Host: 127.0.0.1:{port}", f" {EVIL}"),
        (f" Host: {EVIL}", "Host: 127.0.0.1:{port}"),
        (f"Host : {EVIL}", "Host: 127.0.0.1:{port}"),
        (f"Host: 127.0.0.1\x00{EVIL}",),
        (f"Host: 127.0.0.1:{{port}}\rHost: {EVIL}",),
        (f"Host: 127.0.0.1:{{port}}\nHost: {EVIL}",),
        ("Host:",),
    ],
)
def test_two_hosts_or_half_a_host_are_refused(site: Site, head: tuple[str, ...]) -> None:
    """CVE-2024-42903: LimeSurvey emailed the second Host of two; a proxy before it had checked the first."""
    assert request_reset_raw(site, "POST /password-reset/ HTTP/1.1", *head) == (400, [])


def test_a_good_request_line_does_not_excuse_another_host(site: Site) -> None:
    """CVE-2017-12161, in a request line: a proxy may go by that, and the application by the Host header."""
    head = "POST http://127.0.0.1:{port}/password-reset/ HTTP/1.1", f"Host: {EVIL}"
    assert request_reset_raw(site, *head) == (400, [])


# --- What proxies add, and clients too


@pytest.mark.parametrize(("header", "value"), FORWARDED_HOSTS)
def test_a_link_never_follows_a_forwarded_host(site: Site, header: str, value: str) -> None:
    """CVE-2022-29933 and CVE-2018-14774 (X-Forwarded-Host), CVE-2023-49097 (Forwarded)."""
    answer, mails = request_reset(site, **{header: value})
    assert (answer.status, answer.headers["Location"]) == (302, "/password-reset/done/")
    assert_reset_is_honest(site, mails)


@pytest.mark.parametrize(("header", "value"), FORWARDED_PARTS)
def test_a_link_never_follows_a_forwarded_scheme_port_or_prefix(site: Site, header: str, value: str) -> None:
    """ASVS 4.1.3: what a proxy says in a header, a client can say too."""
    answer, mails = request_reset(site, **{header: value})
    assert (answer.status, answer.headers["Location"]) == (302, "/password-reset/done/")
    assert_reset_is_honest(site, mails)


@pytest.mark.parametrize(("header", "value"), [*FORWARDED_HOSTS, *FORWARDED_PARTS])
def test_without_a_proxy_nothing_forwarded_counts(open_site: Site, header: str, value: str) -> None:
    """CVE-2021-36804 (Akaunting took such headers from everybody), CVE-2022-29933, CVE-2023-49097."""
    _, mails = request_reset(open_site, **{header: value})
    assert_reset_is_honest(open_site, mails)


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL"])
def test_no_header_names_another_page(site: Site, header: str) -> None:
    """CVE-2018-14773: Symfony, Drupal and Zend served the page that the header named, and not the one of the path."""
    assert site.person().send("GET", "/", {header: "/register/"}).text == site.person().get("/").text
    _, mails = request_reset(site, **{header: f"//{EVIL}/register/"})
    assert_reset_is_honest(site, mails)


@pytest.mark.parametrize(
    "line",
    [
        f"X_Forwarded_Host: {EVIL}",
        f"SCRIPT_NAME: //{EVIL}",
        "PATH_INFO: /register/",
        f"SERVER_NAME: {EVIL}",
        "Host_: x",
    ],
)
def test_a_header_with_underscores_changes_nothing(site: Site, line: str) -> None:
    """CVE-2015-0219: WSGI spells `X-A` and `X_A` alike, and a proxy sets or deletes only one of them."""
    status, mails = request_reset_raw(site, "POST /password-reset/ HTTP/1.1", "Host: 127.0.0.1:{port}", line)
    assert status == 302
    assert_reset_is_honest(site, mails)


@pytest.mark.parametrize("line", ["X_Forwarded_For: 192.0.2.66", "X-Forwarded_For: 192.0.2.66"])
def test_a_header_with_underscores_names_no_client(site: Site, line: str) -> None:
    """CVE-2015-0219: the email tells its reader from where it was asked for, as the proxy saw it."""
    person, email = site.person(), quote(site.victim.email).encode()
    body = filled_in(person, "/password-reset/") + b"&email=" + email
    site.let_an_hour_pass()
    [mail] = site.emails_caused_by(lambda: post(person, "/password-reset/", body, line))
    assert b"from 10." in mail.content
    assert b"192.0.2.66" not in mail.content


@pytest.mark.parametrize("forged", ["192.0.2.66", "192.0.2.66, 192.0.2.67", '"192.0.2.66, 127.0.0.1"'])
def test_a_site_without_a_proxy_believes_no_forwarded_client(open_site: Site, forged: str) -> None:
    """ASVS 4.1.3: the address in the email is that of the connection."""
    headers = {"X-Forwarded-For": forged, "X-Real-IP": forged, "Forwarded": f"for={forged}"}
    _, [mail] = request_reset(open_site, **headers)
    assert b"from 127.0.0.1." in mail.content
    assert b"192.0.2." not in mail.content


@pytest.mark.parametrize("header", ["X-Auth-User", "X-Auth_User", "Remote-User", "REMOTE_USER", "X-Forwarded-User"])
def test_no_header_signs_anybody_in(site: Site, header: str) -> None:
    """CVE-2015-0219: an underscore let a client say who it is, in the proxy's place."""
    request = f"GET /account/ HTTP/1.1\r\nHost: 127.0.0.1:{site.server.port}\r\n{header}: {site.victim.email}\r\n"
    assert site.raw(f"{request}Connection: close\r\n\r\n".encode()).startswith(b"HTTP/1.1 302 ")


@pytest.mark.parametrize("origin", [f"https://{EVIL}", "http://127.0.0.1:1337", "https://127.0.0.1:{port}", "null"])
def test_a_form_from_another_origin_is_refused(site: Site, origin: str) -> None:
    """ASVS 3.5.1: links were built from Origin too, where pages and API live on two hosts."""
    answer, mails = request_reset(site, Origin=origin.format(port=site.server.port))
    assert (answer.status, mails) == (400, [])


# --- Every email, and every page


@pytest.mark.parametrize(
    ("path", "known", "pages"),
    [
        ("/password-reset/", True, PAGES_OF_A_RESET),
        ("/register/", True, ["password-reset"]),
        ("/register/", False, ["password-reset-confirm"]),
    ],
    ids=["reset", "account exists", "invitation"],
)
def test_every_email_that_a_stranger_asks_for_leads_to_the_public_url(
    site: Site, path: str, known: bool, pages: list[str]
) -> None:
    """CVE-2023-49097: a registration is no less poisoned than a reset."""
    email = site.victim.email if known else f"new.{token_hex(4)}@example.com"
    site.let_an_hour_pass()
    [mail] = site.emails_caused_by(lambda: site.person(**POISON).submit(path, email=email))
    assert mail.rcpt_tos == [email]
    assert_honest(site, mail, pages)


def test_the_notice_of_a_new_password_leads_to_the_public_url(site: Site) -> None:
    """CVE-2023-49097: the person who used the link chose the headers of the request that causes the notice."""
    account, thief = site.account(), site.person(**POISON)
    link = site.reset_link(account)
    [notice] = site.emails_caused_by(lambda: thief.choose(link))
    assert_honest(site, notice, ["account-secure"])
    site.let_an_hour_pass()
    [mail] = site.emails_caused_by(lambda: thief.submit(path_of(links_in(notice.message)[0])))
    assert_honest(site, mail, PAGES_OF_A_RESET)
    assert notice.rcpt_tos == mail.rcpt_tos == [account.email]


@pytest.mark.parametrize(
    "head",
    [
        (f"Host: {PUBLIC}",),
        (f"Host: {PUBLIC}:1337",),
        (f"Host: {PUBLIC}:8443", "X-Forwarded-Proto: http"),
        (f"Host: {PUBLIC}", "X-Forwarded-Proto: https", "X-Forwarded-Port: 443", f"X-Forwarded-Host: {EVIL}"),
    ],
)
def test_a_link_has_scheme_and_port_of_the_public_url(engine: str, sites: MakeSite, head: tuple[str, ...]) -> None:
    """CVE-2017-12161: behind a proxy, the connection itself is another scheme, host and port than the public ones."""
    site, email = sites(engine, PUBLIC_URL=f"https://{PUBLIC}:8443"), f"new.{token_hex(4)}@example.com"
    person, line = site.person(Host=PUBLIC), "POST /register/ HTTP/1.1"
    [mail] = site.emails_caused_by(lambda: person.post_raw("/register/", line, *head, email=email))
    assert_honest(site, mail, ["password-reset-confirm"], f"https://{PUBLIC}:8443")


@pytest.mark.parametrize(
    "path", ["/", "/login/", "/register/", "/password-reset/", "/password-reset/done/", "/nowhere/"]
)
def test_no_page_follows_what_a_request_says_of_itself(site: Site, path: str) -> None:
    """CVE-2011-4139: a page with the attacker's host in it, kept by a cache, was served to everybody."""
    page = site.person(**POISON).send("GET", path, {})
    assert all(link.startswith("/") for link in re.findall(r'(?:href|src|action)="([^"#]+)"', page.text))
    assert not re.search(rf"{EVIL}|1337|javascript:", page.text + str(page.headers))
