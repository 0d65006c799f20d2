"""A link goes to the stored address of its account or to nobody, whatever is entered.

Each attack requests the victim's reset and names a second recipient, or spells the victim's address so that two parsers
might disagree. Registration accepts the same addresses: an odd one may get an account of its own, never the victim's.
"""

import json
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.support.databases import on_postgresql, on_sqlite
from tests.support.pages import csrf_token, path_of
from tests.support.servers import Page
from tests.support.site import Account, Site
from tests.support.smtp import Record

# A site where every email was caused by the test at hand.
SITE_SETTINGS = {"SITE_NAME": "Example", "OUTBOX_POLL_SECONDS": 0.05}
EVE = "eve@evil.test"
ASKING = pytest.mark.parametrize("path", ["/password-reset/", "/register/"])
FORM = "application/x-www-form-urlencoded"
BOUNDARY = "----boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def submit(site: Site, path: str, email: str) -> tuple[Page, list[list[str]]]:
    """Send an address in a form; return the answer, and who was emailed."""
    person, answers = site.person(), list[Page]()
    site.let_an_hour_pass()
    mails = site.emails_caused_by(lambda: answers.append(person.submit(path, email=email)))
    return answers[0], recipients_of(mails)


def send(site: Site, path: str, content_type: str, body: str) -> tuple[Page, list[list[str]]]:
    """Send a body of any kind with the page's CSRF token beside it; return the answer, and who was emailed."""
    person, answers = site.person(), list[Page]()
    site.let_an_hour_pass()
    headers = {"Content-Type": content_type, "X-CSRFToken": csrf_token(person.get(path))}
    mails = site.emails_caused_by(lambda: answers.append(person.send("POST", path, headers, body.encode())))
    return answers[0], recipients_of(mails)


def recipients_of(mails: list[Record]) -> list[list[str]]:
    """Return whom each email was handed over for; its own To says the same."""
    assert all(", ".join(mail.rcpt_tos) == mail.message["To"] for mail in mails)
    return [mail.rcpt_tos for mail in mails]


# --- More than one address


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "listed",
    [
        "{victim},{eve}",
        "{eve},{victim}",
        "{victim};{eve}",
        "{victim} {eve}",
        "{victim}|{eve}",
        "{victim}\n{eve}",
        "{victim}\r\n{eve}",
        "{victim}\t{eve}",
        "{victim}%0a{eve}",
        "{victim}%0d%0acc:{eve}",
        "{victim}%20{eve}",
        "{victim}%00{eve}",
        "{victim}\x00{eve}",
        "{victim}\x85{eve}",
        "{victim}\u2028{eve}",
        "<{victim}>,<{eve}>",
        "{victim}&email={eve}",
        '["{victim}","{eve}"]',
        '{{"email":"{victim}"}}',
    ],
)
def test_a_list_in_one_field_emails_nobody(site: Site, path: str, listed: str) -> None:
    """CVE-2023-7028: GitLab emailed the link to each of two addresses, of which one was the victim's."""
    answer, mailed = submit(site, path, listed.format(victim=site.victim.email, eve=EVE))
    assert (answer.status, mailed) == (200, [])


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "repeated",
    [
        "email={victim}&email={eve}",
        "email={eve}&email={victim}",
        "email={victim}&email={victim}",
        "email={victim}&email=",
    ],
)
def test_a_repeated_field_emails_nobody(site: Site, path: str, repeated: str) -> None:
    """CVE-2023-7028, ASVS 15.3.7: of two fields one reader takes the first, another the last, a third both."""
    body = repeated.format(victim=quote(site.victim.email), eve=quote(EVE))
    answer, mailed = send(site, path, FORM, body)
    assert (answer.status, mailed) == (400, [])


@on_sqlite  # a refused form reaches no database
@pytest.mark.parametrize(
    "beside",
    ["email[]={eve}", "email[0]={eve}", "user[email][]={eve}", "Email={eve}"],
)
def test_a_field_of_another_name_is_not_read(site: Site, beside: str) -> None:
    """CVE-2023-7028: `user[email][]`, as it was sent to GitLab, once for the victim and once for oneself."""
    victim = site.victim.email
    body = f"email={quote(victim)}&{beside.format(eve=quote(EVE))}"
    assert send(site, "/password-reset/", FORM, body)[1] == [[victim]]


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "body",
    [
        "email[]={victim}&email[]={eve}",
        "email[0]={victim}&email[1]={eve}",
        "user[email][]={victim}&user[email][]={eve}",
        "user[email]={victim}",
    ],
)
def test_a_list_by_its_fields_names_emails_nobody(site: Site, path: str, body: str) -> None:
    """CVE-2023-7028: Rails makes a list of these, and PHP too."""
    answer, mailed = send(site, path, FORM, body.format(victim=quote(site.victim.email), eve=quote(EVE)))
    assert (answer.status == 302, mailed) == (False, [])


@on_sqlite  # a refused form reaches no database
def test_the_query_names_no_reader(site: Site) -> None:
    """ASVS 15.3.7: what counts is the form alone, and not whichever of form, query and cookie is read first."""
    victim = site.victim.email
    path, body = f"/password-reset/?email={quote(EVE)}", f"email={quote(victim)}"
    assert send(site, path, FORM, body)[1] == [[victim]]
    assert send(site, path, FORM, "remember=y")[1] == []


@on_sqlite  # a refused form reaches no database
def test_a_cookie_names_no_reader(site: Site) -> None:
    """ASVS 15.3.7: request.values and their like mix cookies, query and form."""
    person, victim = site.person(), site.victim.email
    csrf = csrf_token(person.get("/password-reset/"))
    cookies = urlencode(person.cookies() | {"email": EVE}).replace("&", "; ")
    site.let_an_hour_pass()
    fields = {"email": victim, "csrf_token": csrf}
    mails = site.emails_caused_by(lambda: person.post("/password-reset/", fields, {"Cookie": cookies}))
    assert recipients_of(mails) == [[victim]]


# --- Other types


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "value",
    [
        "{victim}",
        ["{victim}", EVE],
        [[EVE, "{victim}"]],
        {"0": "{victim}", "1": EVE},
        {"$ne": None},
        {"like": "%"},
        0,
        True,
        None,
    ],
)
def test_json_is_not_taken_for_the_form(site: Site, path: str, value: Any) -> None:
    """CVE-2013-0233, CVE-2023-7028, ASVS 15.3.5: of JSON an address could be a number, a list or a condition."""
    text = json.dumps({"email": value}).replace("{victim}", site.victim.email)
    answer, mailed = send(site, path, "application/json", text)
    assert (answer.status, mailed) == (400, [])


@on_sqlite  # a refused form reaches no database
@pytest.mark.parametrize("kind", ["application/json", "application/vnd.api+json", "text/json; charset=utf-8"])
def test_no_login_is_read_from_json(site: Site, kind: str) -> None:
    """CVE-2013-0233, ASVS 15.3.5: a password that is a number or `true` equals what it should not."""
    person, victim = site.person(), site.victim
    headers = {"Content-Type": kind, "X-CSRFToken": csrf_token(person.get("/login/"))}
    for password in (victim.password, 0, True, [victim.password], {"$ne": ""}):
        body = json.dumps({"email": victim.email, "password": password})
        assert person.send("POST", "/login/", headers, body.encode()).status < 500
        assert not person.is_signed_in()


@on_sqlite  # a refused form reaches no database
@pytest.mark.parametrize("value", ["0", "true", "[0]"])
def test_no_password_is_set_from_json(site: Site, value: str) -> None:
    """CVE-2013-0233: Devise compared the number 0 with each token, and found one that began with no digit."""
    person, victim = site.person(), site.victim
    page = person.get(path_of(site.reset_link(victim)))
    headers = {"Content-Type": "application/json", "X-CSRFToken": csrf_token(page)}
    body = f'{{"new_password1": {value}, "new_password2": {value}, "token": {value}}}'
    assert person.send("POST", page.path, headers, body.encode()).status == 400
    assert site.person().log_in(victim).status == 302


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/xml", "<email>{victim}</email>"),
        ("text/xml", '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "{victim}">]><email>&b;</email>'),
        ("application/x-yaml", "email: {victim}"),
        ("text/plain", "email={victim}"),
        ("application/octet-stream", "email={victim}"),
        ("multipart/form-data", "email={victim}"),
        ("", "email={victim}"),
    ],
)
def test_no_other_kind_of_body_is_read(site: Site, path: str, kind: str, body: str) -> None:
    """CVE-2013-0233: Devise was sent XML, which says of each value what type it has."""
    answer, mailed = send(site, path, kind, body.format(victim=site.victim.email))
    assert (answer.status == 302, mailed) == (False, [])


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "parts",
    [
        [('name="email"; filename="a.txt"', "{victim}")],
        [('name="email"', "{victim}"), ('name="email"; filename="a.txt"', EVE)],
        [('name="email"', "{victim}"), ('name="email"', EVE)],
        [('name="email"', "{victim}"), ('name="cc"; filename="a.txt"', EVE)],
    ],
)
def test_an_upload_is_no_address(site: Site, path: str, parts: list[tuple[str, str]]) -> None:
    """CVE-2013-0233, ASVS 15.3.5: a form library hands an upload on where a view expects text."""
    victim = site.victim.email
    body = "".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n{value.format(victim=victim)}\r\n"
        for head, value in parts
    )
    answer, mailed = send(site, path, MULTIPART, f"{body}--{BOUNDARY}--\r\n")
    assert (answer.status, mailed) == (400, [])


# --- Another spelling of one address

SPELLINGS = [
    # stored, typed: two spellings of one address
    ("mike", "MIKE", True),
    ("mike", "miKe", True),
    ("mike", "mi\u212ae", True),  # the Kelvin sign
    ("simon", "\u017fimon", True),  # the long s
    ("office", "o\ufb03ce", True),  # a ligature of three
    ("strasse", "stra\u00dfe", True),
    ("admin", "\uff41\uff44\uff4d\uff49\uff4e", True),  # full width
    ("bigbird", "\u1d2e\u1d35\u1d33\u1d2e\u1d35\u1d3f\u1d30", True),  # as it was done to Spotify in 2013
    ("jos\u00e9", "jose\u0301", True),
    # characters that only look alike
    ("mike", "m\u0131ke", False),  # without a dot
    ("mike", "M\u0130KE", False),  # with one
    ("mike", "m\u0456ke", False),  # Cyrillic
    ("alice", "\u0251lice", False),  # alpha
    ("alice", "alic\u00e8", False),
]


@pytest.mark.parametrize(("stored", "typed", "same"), SPELLINGS)
def test_a_reset_goes_to_the_spelling_that_is_stored(site: Site, stored: str, typed: str, same: bool) -> None:
    """CVE-2019-19844: Django compared without case, and emailed what was typed."""
    rest = f".{token_hex(4)}@example.com"
    site.register(stored + rest)
    answer, mailed = submit(site, "/password-reset/", typed + rest)
    assert (answer.status, mailed) == (302, [[stored + rest]] if same else [])


@pytest.mark.parametrize(("stored", "typed"), [(stored, typed) for stored, typed, same in SPELLINGS if same])
def test_another_spelling_of_an_address_registers_no_second_account(site: Site, stored: str, typed: str) -> None:
    """CVE-2019-19844, CVE-2020-7245: two accounts of one address, and one of them resets the other's password."""
    rest = f".{token_hex(4)}@example.com"
    site.register(stored + rest)
    assert submit(site, "/register/", typed + rest)[1] == [[stored + rest]]
    assert site.query("SELECT count(*) FROM users WHERE email LIKE ?", f"%{rest}") == [(1,)]


@pytest.mark.parametrize(
    ("domain", "typed", "same"),
    [
        ("kite.example", "KITE.example", True),
        ("kite.example", "\u212aite.example", True),
        ("kite.example", "\uff4bite.example", True),
        ("kite.example", "kite\u3002example", True),  # an ideographic full stop
        ("m\u00fcnchen.example", "xn--mnchen-3ya.example", True),
        ("kite.example", "k\u0131te.example", False),
        ("kite.example", "k\u0456te.example", False),
        ("strasse.example", "stra\u00dfe.example", False),  # two domains, RFC 5891
    ],
)
def test_a_reset_goes_to_the_domain_that_is_stored(site: Site, domain: str, typed: str, same: bool) -> None:
    """CVE-2019-19844: a look-alike domain, registered by the attacker."""
    local = f"alice.{token_hex(4)}@"
    submit(site, "/register/", local + domain)
    answer, mailed = submit(site, "/password-reset/", local + typed)
    wire = (local + domain).replace("m\u00fcnchen", "xn--mnchen-3ya")
    assert (answer.status, mailed) == (302, [[wire]] if same else [])


# --- What two readers of an address disagree about


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "ambiguous",
    [
        "{victim}@evil.test",
        "{eve}@example.com",
        "{eve}@{victim}",
        "{victim})({eve}",
        "{victim}]{eve}",
        "{victim}<{eve}>",
        "{victim} <{eve}>",
        "<{victim}>",
        "Eve <{victim}>",
        '"{victim}" <{eve}>',
        '"{victim}"@evil.test',
        '"{local}"@example.com',
        "{local}({eve})@example.com",
        "{local}@example.com({eve})",
        "{local}@(evil.test)example.com",
        "@evil.test:{victim}",
        "<@evil.test:{victim}>",
        "{local}\\@example.com",
        "{local}@[127.0.0.1]",
        "mailto:{victim}",
        "{victim}?cc={eve}",
    ],
)
def test_an_address_with_syntax_of_its_own_emails_nobody(site: Site, path: str, ambiguous: str) -> None:
    """CVE-2019-16056, CVE-2023-27043: Python's own parser took the wrong part of these; RFC 5322 allows some."""
    victim = site.victim.email
    local = victim.partition("@")[0]
    answer, mailed = submit(site, path, ambiguous.format(victim=victim, eve=EVE, local=local))
    assert (answer.status, mailed) == (200, [])


@on_sqlite  # a refused form reaches no database
@ASKING
@pytest.mark.parametrize(
    "encoded",
    [
        "=?utf-8?q?{local}=40example.com?=@evil.test",
        "=?utf-8?q?eve=40evil.test=2c?={victim}",
        "=?utf-8?q?eve=40evil.test=3e=20?={victim}",
        "=?utf-8?b?ZXZlQGV2aWwudGVzdCwg?={victim}",
        "=?utf-8?q?=3ceve=40evil.test=3e?={victim}",
        "=?utf-8?q?a=0d=0abcc=3aeve=40evil.test?=@example.com",
        "=?utf-8?q?=0abcc=3aeve=40evil.test?={victim}",
        "=?utf-8?q?a=00b?=@example.com",
        "=?utf-7?q?+AEA-?={victim}",
        "=?x?q?{local}?=@example.com",
    ],
)
def test_an_encoded_word_is_no_address(site: Site, path: str, encoded: str) -> None:
    """RFC 2047 section 5, CVE-2024-6923, CVE-2026-1299: Python decodes it in To, to any address and to line ends."""
    victim = site.victim.email
    answer, mailed = submit(site, path, encoded.format(victim=victim, local=victim.partition("@")[0]))
    assert (answer.status, mailed) == (200, [])


@on_postgresql  # the one with collations
@pytest.mark.parametrize(
    "other",
    [
        "{local}+eve@example.com",
        "{local}.@example.com",
        "{local}-@example.com",
        "{dots}@example.com",
        "{local}@sub.example.com",
        "{local}@example.com.evil.test",
        "{local}@example.co",
        "{local}%example.com@evil.test",
        "evil.test!{victim}",
        "{local}@xn--example-6gg.com",
        "{local}@xn--0049.example.com",
        "{victim}.",
        ".{victim}",
        "{victim}\x00",
        "\u200b{victim}",
        "\ufeff{victim}",
        "\u202e{victim}",
        "{local}\u00ad@example.com",
        "{local}@exam\u00adple.com",
        "{local}\uff20example.com",
        "{local}@example.com\uff0fevil.test",
        "{local}@example.com\u2100evil.test",
        "{victim}" + " " * 300 + "x",
        "{victim}" + "x" * 300,
        "%",
        "_" * 6 + "%@example.com",
        "' OR '1'='1'@example.com",
    ],
)
def test_a_reset_for_a_similar_address_emails_nobody(site: Site, other: str) -> None:
    """CVE-2008-4106 (a name cut to the victim's), CVE-2019-9636 (characters that unfold), and relays of old."""
    victim = site.victim.email
    local = victim.partition("@")[0]
    answer, mailed = submit(site, "/password-reset/", other.format(victim=victim, local=local, dots=".".join(local)))
    assert (answer.status in {200, 302}, mailed) == (True, [])


@pytest.mark.parametrize("padded", [" {victim}", "{victim} ", "\t{victim}\r\n", "\u00a0{victim}\u2003"])
def test_white_space_around_an_address_makes_no_other_account(site: Site, padded: str) -> None:
    """CVE-2020-7245: CTFd took a name with a space for a new one, and reset the account without the space."""
    victim = site.victim.email
    before = site.query("SELECT count(*) FROM users")
    assert submit(site, "/register/", padded.format(victim=victim))[1] == [[victim]]
    assert submit(site, "/password-reset/", padded.format(victim=victim))[1] == [[victim]]
    assert site.query("SELECT count(*) FROM users") == before


@pytest.mark.parametrize(
    "other",
    ["{local}+eve@example.com", "{local}%example.com@evil.test", "evil.test!{victim}", "{local}@xn--exmple-4nf.com"],
)
def test_a_similar_address_is_an_account_of_its_own(site: Site, other: str) -> None:
    """CVE-2008-4106: its links open its own account, and leave the victim's password alone."""
    victim = site.victim
    local = victim.email.partition("@")[0]
    thief = Account(f"{token_hex(4)}." + other.format(victim=victim.email, local=local))
    site.register(thief.email, thief.password)
    assert uid_in(site.reset_link(thief)) != uid_in(site.reset_link(victim))
    assert site.person().log_in(thief).status == 302
    assert site.person().log_in(victim).status == 302


@on_postgresql  # which takes no NUL in a text
@pytest.mark.parametrize("path", ["/password-reset/", "/register/", "/login/"])
@pytest.mark.parametrize("text", ["{victim}\x00", "\x00{victim}", "a\x00b@example.com", "\x00"])
def test_a_nul_byte_is_no_server_error(site: Site, path: str, text: str) -> None:
    """ASVS 2.2.1: PostgreSQL takes no NUL in a text, and C programs end one there."""
    person, victim = site.person(), site.victim
    page = person.submit(path, email=text.format(victim=victim.email), password=victim.password)
    assert page.status == 200
    assert not person.is_signed_in()


def test_a_nul_byte_does_not_end_a_password(site: Site) -> None:
    """ASVS 6.2.8: bcrypt of old compared what stands before the first NUL."""
    victim = site.victim
    for password in (f"{victim.password}\x00", f"{victim.password}\x00x"):
        assert site.person().log_in(victim, password).status == 200


def uid_in(link: str) -> str:
    """Return whose account a link opens."""
    return path_of(link).split("/")[2]
