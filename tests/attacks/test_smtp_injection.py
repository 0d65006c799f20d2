"""What a client enters never becomes an SMTP command, a header or a line of an email.

The tests read what reaches the mail server, byte for byte. Either an attack is refused and nobody is emailed, or
there is one email for one recipient, equal to that of an honest request except for time, link and network address.
"""

import re
from functools import cache
from html.parser import HTMLParser
from secrets import token_hex

import pytest

from tests.support.databases import on_sqlite
from tests.support.pages import text_of
from tests.support.site import Site
from tests.support.smtp import Record

# A site where every email was caused by the test at hand.
SITE_SETTINGS = {"SITE_NAME": "Example", "OUTBOX_POLL_SECONDS": 0.05}
pytestmark = on_sqlite  # an email is the same from both
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
EVE = "eve@evil.test"
VARIABLE = {
    rb"={15}\d+==": b"BOUNDARY",
    rb"(?m)^(Date|Message-ID): .*$": rb"\1: ...",
    rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC": b"TIME",
    rb"10\.\d+\.\d+\.\d+": b"CLIENT",
    rb"(http://127\.0\.0\.1:\d+/[\w-]+/[\w-]+)/[\w.-]+": rb"\1/TOKEN",
}


@cache
def honest_email(site: Site, agent: str) -> bytes:
    """Return what an honest request with a browser's name causes."""
    return only_email(request_reset(site, f"User-Agent: {agent}")[1])


def request_reset(site: Site, *lines: str) -> tuple[int, list[Record]]:
    """Ask for the victim's reset with more lines in the head; return the status and the emails it caused."""
    person, victim, statuses = site.person(), site.victim, list[int]()
    head = "POST /password-reset/ HTTP/1.1", f"Host: 127.0.0.1:{site.server.port}", *lines
    site.let_an_hour_pass()
    mails = site.emails_caused_by(
        lambda: statuses.append(person.post_raw("/password-reset/", *head, email=victim.email))
    )
    return statuses[0], mails


def register(site: Site, email: str) -> Record:
    """Register an address and return the email for it, which is the only one."""
    [mail] = site.emails_caused_by(lambda: site.person().submit("/register/", email=email))
    assert_well_formed(mail)
    return mail


def only_email(mails: list[Record]) -> bytes:
    """Return the text of the only email, without what differs from one honest email to the next."""
    [mail] = mails
    assert_well_formed(mail)
    text = mail.content
    for pattern, instead in VARIABLE.items():
        text = re.sub(pattern, instead, text)
    return text


def assert_well_formed(mail: Record) -> None:
    """Hold that an email has one recipient, each header once, and lines as RFC 5321 wants them."""
    assert len(mail.rcpt_tos) == 1
    head = re.findall(rb"(?m)^([\w-]+):", mail.content.partition(b"\r\n\r\n")[0])
    assert len(head) == len(set(head)) and not {b"Bcc", b"Cc", b"Reply-To"} & set(head)
    lines = mail.content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > 998 for line in lines)
    assert mail.content.isascii() or mail.smtputf8


# --- In a header of the request


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n", "\r\n ", "\x00", "\x0b", "\x1c"])
@pytest.mark.parametrize("header", ["User-Agent", "Accept-Language", "X-Forwarded-For"])
def test_a_header_that_contains_a_line_end_is_refused(site: Site, header: str, line_end: str) -> None:
    """CVE-2023-51764, -51765, -51766, CVE-2024-27305: a dot between two bare line ends is the end for some servers."""
    smuggled = line_end.join(["x", ".", "MAIL FROM:<accounts@example.com>", f"RCPT TO:<{EVE}>", "DATA", ""])
    assert request_reset(site, f"{header}: {smuggled}") == (400, [])


@pytest.mark.parametrize("header", ["User-Agent", "Accept-Language", "Referer", "X-Forwarded-Host"])
@pytest.mark.parametrize(
    "value",
    [
        f"x\x85Bcc: {EVE}\xe2\x80\xa8Bcc: {EVE}\xe2\x80\xa9\xc2\x85Bcc: {EVE}",  # as Latin-1 and as UTF-8
        f"%0d%0aBcc: {EVE}%0d%0a%0d%0a\\r\\nBcc: {EVE} =?utf-8?q?=0d=0aBcc=3a{EVE}?= &#13;&#10;.&#13;&#10;",
        f"<a href='https://evil.test/'>{EVE}</a> {{{{7*7}}}} {{% raw %}} ${{7*7}} https://evil.test/",
    ],
    ids=["line ends of Python", "encoded line ends", "markup"],
)
def test_no_header_reaches_the_email(site: Site, header: str, value: str) -> None:
    """CVE-2015-8476 (line ends in an email's headers), CVE-2024-55224 (HTML in an email)."""
    status, mails = request_reset(site, f"{header}: {value}")
    assert (status, only_email(mails)) == (302, honest_email(site, "x"))


@pytest.mark.parametrize(
    "around", ["<script>{}</script>", "{} <a href='https://evil.test/'>Windows</a>", "{}\x85Bcc: " + EVE, "{0} " * 20]
)
def test_a_browser_is_named_in_the_sites_own_words(site: Site, around: str) -> None:
    """CVE-2024-55224: an email says what the attacker lets it say, in the site's name."""
    status, mails = request_reset(site, f"User-Agent: {around.format(CHROME)}")
    assert (status, only_email(mails)) == (302, honest_email(site, CHROME))
    assert b"Chrome on Windows" in honest_email(site, CHROME)


@pytest.mark.parametrize("client", ["<b>10.0.0.1</b>", "10.0.0.1\x85Bcc: " + EVE, "fe80::1%<b>", "x" * 500])
def test_a_client_that_is_no_address_is_not_named(site: Site, client: str) -> None:
    """CVE-2024-55224, by the header that says from where a request came."""
    _, [mail] = request_reset(site, f"X-Forwarded-For: {client}")  # the first of two, where the proxy adds its own
    person, victim = site.person(client.encode("ascii", "replace").decode()), site.victim
    site.let_an_hour_pass()
    [alone] = site.emails_caused_by(lambda: person.request_reset(victim.email))
    for one in (mail, alone):
        assert_well_formed(one)
        assert not re.search("<b>|Bcc|xxx", text_of(one.message))


# --- In the address


@pytest.mark.parametrize("path", ["/password-reset/", "/register/"])
@pytest.mark.parametrize(
    "injected",
    [
        "{victim}\r\nBcc: {eve}",
        "{victim}\nBcc: {eve}",
        "{victim}\rBcc: {eve}",
        "{victim}\x0bBcc: {eve}",
        "{victim}\x1cBcc: {eve}",
        "{victim}\x85Bcc: {eve}",
        "{victim}\u2028Bcc: {eve}",
        "{victim}\r\n\r\n<h1>Hello</h1>",
        "{victim}>\r\nRCPT TO:<{eve}",
        "{victim}>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT",
        "{victim}> ORCPT=rfc822;{eve}",
        "{victim}> SIZE=1\r\nRSET",
        "{victim}\r\n.\r\nMAIL FROM:<{eve}>",
        "{victim}\n.\nMAIL FROM:<{eve}>",
        "{victim}\r.\rMAIL FROM:<{eve}>",
        "{victim}\n.\r\nMAIL FROM:<{eve}>",
        '"x\r\nRCPT TO:<{eve}>\r\n"@example.com',
        '"x\n"@example.com',
        "x@[\r\nRCPT TO:<{eve}>]",
        "x@exam\r\nple.com",
    ],
)
def test_an_address_that_contains_a_line_end_is_refused(site: Site, path: str, injected: str) -> None:
    """CVE-2015-8476, CVE-2015-9096, CVE-2015-9097 (commands), CVE-2023-51764 (smuggling)."""
    email = injected.format(victim=site.victim.email, eve=EVE)
    answers = []
    mails = site.emails_caused_by(lambda: answers.append(site.person().submit(path, email=email)))
    assert (answers[0].status, mails) == (200, [])


@pytest.mark.parametrize(
    "local",
    [
        "-oQ/tmp/",
        "-X/var/www/x.php",
        "|id",
        "`id`",
        "$HOME",
        "{{7*7}}",
        "${7*7}",
        "#{7*7}",
        "'or'1'='1",
        "a&lt",
        "a&amp",
        "//evil.test/x",
        "www.evil.test/?x=",
        "x" * 50,
    ],
)
def test_an_odd_address_arrives_as_it_was_typed(site: Site, local: str) -> None:
    """CVE-2016-10033 and CVE-2020-7769 (options of sendmail), ASVS 1.3.7 (templates), ASVS 1.3.11."""
    email = f"{local}.{token_hex(4)}@example.com"
    mail = register(site, email)
    assert (mail.rcpt_tos, mail.message["To"]) == ([email], email)
    assert email in text_of(mail.message)


@pytest.mark.parametrize("local", ["a&lt", "//evil.test/x", "www.evil.test/?x=", "javascript", "'onclick='x"])
def test_an_address_adds_no_markup_to_the_email(site: Site, local: str) -> None:
    """CVE-2024-55224: what a stranger typed into the form must stay text, and lead nowhere."""
    email = f"{local}.{token_hex(4)}@example.com"
    mail, plain = register(site, email), register(site, f"plain.{token_hex(4)}@example.com")
    assert email in HTML.of(mail).text
    assert HTML.of(mail).tags == HTML.of(plain).tags


def test_a_line_of_an_email_that_begins_with_a_dot_does_not_end_it(site: Site) -> None:
    """RFC 5321 section 4.5.2: of a long address beyond ASCII, some line begins with one of its dots."""
    email = f"\u00fc{token_hex(4)}{'.x' * 25}@{'x.' * 80}example.com"
    mail = register(site, email)
    assert re.search(rb"(?m)^\.", mail.content)
    assert mail.rcpt_tos == [email]
    assert email in text_of(mail.message)
    assert email in HTML.of(mail).text


def test_a_server_without_international_addresses_is_sent_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6531 section 3.2: an address beyond ASCII, put into ASCII by force, would be somebody else's."""
    monkeypatch.setattr(site.mail_server, "smtputf8", False)
    email = f"jos\u00e9.{token_hex(4)}@example.com"
    assert site.emails_caused_by(lambda: site.person().submit("/register/", email=email)) == []
    [(failure,)] = site.query("SELECT failure FROM outbox WHERE address = ? AND failed_at IS NOT NULL", email)
    assert "international addresses" in failure


def test_a_domain_beyond_ascii_goes_out_in_ascii(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5891: each server takes the xn-- form."""
    monkeypatch.setattr(site.mail_server, "smtputf8", False)
    local = f"alice.{token_hex(4)}"
    mail = register(site, f"{local}@m\u00fcnchen.example")
    assert mail.rcpt_tos == [f"{local}@xn--mnchen-3ya.example"]
    assert mail.message["To"] == f"{local}@xn--mnchen-3ya.example"


# --- Emails on one line


def test_each_of_many_emails_has_its_own_recipient(site: Site) -> None:
    """ASVS 1.3.11: emails share a connection, and none of them a recipient."""
    emails = {f"{name}.{token_hex(4)}@example.com" for name in "abcde"}
    people = {email: site.person() for email in emails}
    mails = site.emails_caused_by(
        lambda: [person.submit("/register/", email=email) for email, person in people.items()]
    )
    assert sorted(mail.rcpt_tos for mail in mails) == sorted([email] for email in emails)
    for mail in mails:
        assert mail.message["To"] == mail.rcpt_tos[0]
        assert set(re.findall(r"[\w.]+@example\.com", text_of(mail.message))) == set(mail.rcpt_tos)


class HTML(HTMLParser):
    """The HTML part of an email, taken apart as an email reader does."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", list[tuple[str, list[str]]]()

    @classmethod
    def of(cls, mail: Record) -> "HTML":
        part = mail.message.get_body(("html",))
        assert part is not None
        html = cls()
        html.feed(part.get_content())
        return html

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag, with the names of its attributes."""
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data
