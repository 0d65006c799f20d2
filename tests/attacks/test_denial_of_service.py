"""No single request costs the site much time, breaks it, or stays in its memory.

nginx handles slow senders: `test_slow_clients_do_not_hold_up_others` in tests/processes/test_nginx.py. The limits
against floods are in tests/attacks/test_throttles.py.
"""

import gzip
import re
from collections.abc import Iterator
from secrets import choice, token_hex

import pytest

from tests.support.databases import on_postgresql, on_sqlite
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.raw_http import is_quick
from tests.support.site import Person, Site
from tests.support.site_requests import FORM, cookies_of, filled_in, post, resident, send

QUICK = 0.5  # seconds; with the defence away each of these was 1 to 60, and more with every doubling
MIB = 1024 * 1024
MULTIPART = "Content-Type: multipart/form-data; boundary=x"
# NFC and NFKC sort marks of different classes in quadratic time: 60 kB of these take two seconds.
MARKS = "a" + "\u0301\u0316" * 15_000
ADDRESSES = {
    "labels without end": "a@" + "a." * 20_000 + "com",
    "dots": "." * 30_000 + "@example.com",
    "at-signs": "@" * 20_000,
    "comments": "(" * 15_000 + "a@example.com",
    "quotes": '"' + "a" * 30_000 + '"@example.com',
    "hyphens": "a@" + "-" * 30_000,
    "a literal": "a@[" + "1." * 15_000 + "]",
    "marks": MARKS + "@example.com",
    "marks in the domain": f"a@{MARKS}.com",
    "ligatures": "\ufdfa" * 15_000 + "@example.com",
    "digits": "a@" + "\u0660" * 20_000 + ".com",
    "middle dots": "a@" + "\u30fb" * 15_000 + "\u6f22.com",
    "Punycode": "a@xn--" + "a" * 40_000 + ".com",
}


def parts(number: int, more: str = "") -> bytes:
    """Return a multipart body of so many parts."""
    heads = (f'--x\r\nContent-Disposition: form-data; name="f{index}"{more}\r\n\r\nv\r\n' for index in range(number))
    return "".join(heads).encode() + b"--x--\r\n"


# Each with its content type and the answer: 400 and 413 come before anything of it is used, the rest is a form without
# the fields that it needs.
BODIES = {
    "parameters": (FORM, b"&".join(b"%x=" % number for number in range(10_000)), 413),
    "parameters without a name": (FORM, b"&" * 60_000, 413),
    "multipart parameters": (MULTIPART, parts(800), 413),
    "multipart files": (MULTIPART, parts(800, '; filename="a"'), 413),
    "one file": (MULTIPART, parts(1, '; filename="a"'), 400),
    "multipart in multipart": (MULTIPART, b"--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" * 1000, 200),
    "line ends": (
        MULTIPART,
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n' + b"\r" * 60_000,
        200,
    ),
    "a part's headers": (MULTIPART, b"--x\r\n" + b"A: b\r\n" * 10_000, 200),
    "a long boundary": (f"Content-Type: multipart/form-data; boundary={'x' * 7000}", b"--" + b"x" * 60_000, 200),
    "no boundary": ("Content-Type: multipart/form-data", parts(9), 200),
    "JSON": ("Content-Type: application/json", b"[" * 60_000, 400),
    "text": ("Content-Type: text/plain", b"csrf_token=a" * 5000, 200),
    "bytes": (FORM, b"csrf_token=\xff&email=\xed\xa0\x80", 200),
    "a megabyte": (FORM, b"password=" + b"a" * MIB, 413),
}
HEADS = {
    "cookies": "Cookie: " + ";".join(f"a{number}=b" for number in range(900)),
    "a session": "Cookie: pwreset_session=" + "a" * 8000,
    "a compressed session": "Cookie: pwreset_session=." + "eJw" * 2600 + ".a.b",
    "languages": "Accept-Language: " + "en-a,de;q=0.1," * 500,
    "browsers": "User-Agent: " + "Firefox/" * 1000,
    "credentials": "Authorization: Digest " + "a=b," * 1900,
    "colons": "X-Forwarded-For: " + ":" * 8000,
    "a zone": "X-Forwarded-For: fe80::1%" + "a" * 8000,
    "proxies": "X-Forwarded-For: " + "192.0.2.1," * 800,
    "tags": "If-None-Match: " + '"a",' * 2000,
    "a date": "If-Modified-Since: " + "9" * 8000,
    "an origin": "Origin: " + "http://[" * 1000,
    "a type": "Content-Type: " + "a/b;" * 2000,
}
LENGTHS = {
    "negative": "Content-Length: -1",
    "signed": "Content-Length: +3",
    "hexadecimal": "Content-Length: 0x3",
    "listed": "Content-Length: 3, 4",
    "twice": "Content-Length: 3\r\nContent-Length: 4",
    "with a superscript": "Content-Length: \xb3",
    "beyond all numbers": f"Content-Length: {'9' * 40}",
    "with chunks": "Content-Length: 3\r\nTransfer-Encoding: chunked",
    "twice in chunks": "Transfer-Encoding: chunked, chunked",
    "in other chunks": "Transfer-Encoding: xchunked",
    "in chunks of two kinds": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "beside other chunks": "Content-Length: {length}\r\nTransfer-Encoding: xchunked",
    "beside a compression": "Content-Length: {length}\r\nTransfer-Encoding: gzip",
}
LINKS = ("password-reset-confirm", "password-reset-cancel", "account-secure")
NO_TEXT = {"NUL": b"%00", "a byte": b"%ff", "a surrogate": b"%ed%a0%80"}


def serves(site: Site) -> bool:
    """Whether somebody else is served as always, by processes that none replaced."""
    return site.person().get("/login/").status == 200


def looked_at(site: Site) -> int:
    """Return how many wrong passwords were compared, and so hashed."""
    return int(site.query("SELECT count(*) FROM security_events WHERE kind = 'login_failed'")[0][0])


# --- long passwords


@on_sqlite  # a refused form reaches no database
@pytest.mark.parametrize("password", ["a" * 60_000, MARKS], ids=["letters", "marks"])
def test_a_long_password_is_refused_at_login_before_it_is_hashed(site: Site, password: str) -> None:
    """CVE-2013-1443, CVE-2016-6515: a minute of hashing for a megabyte of password."""
    person, before = site.person(), looked_at(site)
    body = filled_in(person) + b"&email=nobody@example.com&password=" + password.encode()
    page = post(person, "/login/", body)
    assert (page.status, looked_at(site)) == (200, before)
    assert "A password has at most 1,024 characters." in page.text
    assert is_quick(lambda: post(person, "/login/", body), QUICK)


@on_sqlite  # a refused form reaches no database
@pytest.mark.parametrize("password", ["a b" * 400, "a b" * 9000], ids=["1,200", "27,000"])
def test_a_long_password_is_refused_where_it_is_set(site: Site, password: str) -> None:
    """CVE-2013-1443."""
    account = site.account()
    link = site.reset_link(account)
    page = site.person().choose(link, password)
    assert page.status == 200
    assert re.search("at most 1,?024 characters", page.text)
    assert site.person().log_in(account).status == 302


@on_sqlite  # a hash has the same length for each
def test_the_longest_password_is_a_password_like_any_other(site: Site) -> None:
    """ASVS 6.2.8, 6.2.9, CVE-2013-1443: the bound is far above what people use, and nothing is cut off below it."""
    longest = "".join(choice("abcdefghij klmnop") for _ in range(1022)) + "xy"
    account = site.account(password=longest)
    assert site.person().log_in(account, longest[:-1]).status == 200
    assert site.person().log_in(account).status == 302


# --- addresses


@on_sqlite  # what is no address reaches no database
@pytest.mark.parametrize("path", ["/password-reset/", "/register/", "/login/"])
@pytest.mark.parametrize("sort", ADDRESSES)
def test_a_long_address_is_refused_before_anything_looks_into_it(site: Site, sort: str, path: str) -> None:
    """CVE-2023-46695, CVE-2023-36053, CVE-2024-3651, CVE-2026-45409: Unicode, labels and IDNA in quadratic time."""
    person = site.person()
    body = filled_in(person) + b"&password=x&email=" + ADDRESSES[sort].encode()
    page = post(person, path, body)
    assert page.status == 200
    assert "An email address has at most 254 characters." in page.text
    assert is_quick(lambda: post(person, path, body), QUICK)


@on_postgresql  # which holds a text to its length
@pytest.mark.parametrize(
    "address",
    ["a@" + "a." * 120 + "com", "\u0390" * 60 + "@example.com", "a" * 64 + "@" + "\u6f22" * 15 + ".com"],
    ids=["labels", "what unfolds", "Punycode"],
)
def test_the_longest_addresses_hold_up_nobodys_email(site: Site, address: str) -> None:
    """CVE-2023-36053, CVE-2024-3651: what the form takes the worker must bear."""
    for path in ("/register/", "/password-reset/"):
        assert site.person().post_form(path, {}, email=address).status == 302
    assert site.account()


@on_sqlite  # no database knows of cookies
def test_the_longest_addresses_fit_into_a_cookie(site: Site) -> None:
    """ASVS 3.3.5, CVE-2016-4423: the session keeps what was typed in the visitor's own browser, within its bounds."""
    person = site.person()
    for path in ("/register/", "/password-reset/"):
        local = "".join(choice("\u4e00\u5e74\u6c34\u7530\u8a71\u9ed2\uac00\ud7a3") for _ in range(64))
        page = person.post_form(path, {}, email=f"{local}@{'a.' * 28}com")
        assert page.status == 302
    assert len(page.headers["Set-Cookie"].partition(";")[0]) < 4096


# --- forms


@on_sqlite  # what is no form reaches no database
@pytest.mark.parametrize("sort", BODIES)
def test_a_body_that_no_form_sends_is_refused_at_little_cost(site: Site, sort: str) -> None:
    """CVE-2011-4885, CVE-2012-1150, CVE-2023-24580, CVE-2023-25577, CVE-2023-46136, CVE-2024-49767, CVE-2025-46727."""
    (kind, body, status), person = BODIES[sort], site.person()
    token = f"X-CSRFToken: {csrf_token(person.get('/login/'))}"  # or all would be refused for want of one

    def answer() -> int:
        return send(site, "POST /login/ HTTP/1.1", cookies_of(person), token, kind, body=body).status

    assert answer() == status
    assert is_quick(answer, QUICK)
    assert serves(site)


@on_sqlite  # refused ones reach no database
@pytest.mark.parametrize(("more", "status"), [(47, 200), (48, 413)])
def test_a_form_has_at_most_fifty_parameters(site: Site, more: int, status: int) -> None:
    """CVE-2011-4885, CVE-2025-46727."""
    person = site.person()
    body = filled_in(person) + b"&email=x&password=x" + b"".join(b"&a%d=" % number for number in range(more))
    assert post(person, "/login/", body).status == status


@on_sqlite
@pytest.mark.parametrize("query", ["&".join(f"{number}=" for number in range(500)), "&" * 4000])
def test_a_query_has_at_most_fifty_parameters(site: Site, query: str) -> None:
    """CVE-2011-4885, CVE-2025-46727."""
    assert send(site, f"GET /login/?{query} HTTP/1.1").status == 413


@on_sqlite  # nothing of it is an address
def test_a_semicolon_separates_no_parameters(site: Site) -> None:
    """CVE-2025-59830, CVE-2021-23336: more parameters than are counted, and other ones than a cache sees."""
    person = site.person()
    page = post(person, "/password-reset/", filled_in(person) + b"&email=x" + b";a=" * 100)
    assert page.status == 200
    assert f'value="x{";a=" * 100}"' in page.text


@on_sqlite
def test_a_compressed_form_is_not_unpacked(site: Site) -> None:
    """ASVS 15.2.2: thirty megabytes, in 30 kB."""
    person = site.person()
    body = gzip.compress(filled_in(person) + b"&email=nobody@example.com&password=" + b"x" * 30_000_000)
    assert post(person, "/login/", body, "Content-Encoding: gzip").status == 400
    assert serves(site)


@on_sqlite
def test_names_within_names_are_names(site: Site) -> None:
    """CVE-2025-46727: systems that make trees of `a[a][a]` run out of stack."""
    assert send(site, f"GET /login/?a{'[a]' * 1300}=1 HTTP/1.1").status == 200


@on_sqlite
def test_chunks_are_no_way_around_the_bound_of_a_body(site: Site) -> None:
    """ASVS 15.2.2: what comes without a length is counted all the same, and not cut off and used."""
    person = site.person()
    body = filled_in(person) + b"&email=nobody@example.com&password=" + b"x" * 70_000
    pieces = (body[start : start + 4096] for start in range(0, len(body), 4096))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert 400 <= post(person, "/login/", chunks, "Transfer-Encoding: chunked").status < 500
    assert serves(site)


@on_sqlite
def test_a_long_next_is_dropped(site: Site) -> None:
    """ASVS 4.2.5: it would become a header that proxies refuse, and the visitor could not log in."""
    page = site.person().log_in(site.account(), next="/" + "a" * 50_000)
    assert (page.status, page.headers["Location"]) == (302, "/account/")


# --- heads and lengths


@on_sqlite  # nothing of these reaches the database
@pytest.mark.parametrize("sort", HEADS)
def test_a_long_header_costs_little(site: Site, sort: str) -> None:
    """CVE-2023-23969, CVE-2024-56374: languages that were cached, addresses that were taken apart."""
    person = site.person()
    body = filled_in(person, "/password-reset/") + b"&email=nobody@example.com"

    def asked() -> int:  # what is read of a client is read of a form's sender
        return post(person, "/password-reset/", body, HEADS[sort]).status

    def looked(path: str) -> int:
        return send(site, f"GET {path} HTTP/1.1", HEADS[sort]).status

    assert asked() in {302, 400}
    assert is_quick(asked, QUICK)
    for path in ("/static/pwreset.css", "/metrics"):
        assert looked(path) in {200, 400, 403}
        assert is_quick(lambda path=path: looked(path), QUICK)
    assert serves(site)


@on_sqlite
@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET /", [f"X-{number}: y" for number in range(200)]),
        ("GET /", ["X: " + "y" * 70_000]),
        ("GET /?" + "a" * 5000, []),
        ("A" * 5000 + " /", []),
    ],
    ids=["headers", "a header", "a query", "a method"],
)
def test_a_head_beyond_bounds_is_refused(site: Site, line: str, headers: list[str]) -> None:
    """ASVS 15.2.2."""
    assert 400 <= send(site, f"{line} HTTP/1.1", *headers).status < 500
    assert serves(site)


@on_sqlite
@pytest.mark.parametrize("sort", LENGTHS)
def test_a_length_that_is_none_is_refused(site: Site, sort: str) -> None:
    """ASVS 4.2.1, CVE-2024-1135, CVE-2024-6827: where a body ends must not be a matter of opinion."""
    person = site.person()
    # a complete form: if it were accepted, the answer would be 200
    body = filled_in(person) + b"&email=nobody@example.com&password=x"
    reply = post(person, "/login/", body, LENGTHS[sort].replace("{length}", str(len(body))))
    assert reply.status in {400, 411, 413, 501}
    assert serves(site)


@on_sqlite
@pytest.mark.parametrize(("length", "status"), [(60_000, 400), (10**30, 413)])
def test_a_body_that_breaks_off_is_refused(site: Site, length: int, status: int) -> None:
    """ASVS 4.2.1."""
    person = site.person()
    # complete so far: if it were accepted, the answer would be 200
    body = filled_in(person) + b"&email=nobody@example.com&password=x"
    assert post(person, "/login/", body, f"Content-Length: {length}").status == status
    assert serves(site)


@on_sqlite
@pytest.mark.parametrize("ranges", ["0-," * 1500, "0-0," * 1500, "0-,0-1", "9" * 4000 + "-", "-" + "9" * 4000])
def test_a_file_is_sent_once_at_most_whatever_ranges_are_asked_for(site: Site, ranges: str) -> None:
    """CVE-2011-3192, CVE-2025-62727."""
    reply = send(site, "GET /static/pico.min.css HTTP/1.1", f"Range: bytes={ranges}0-")
    complete = send(site, "GET /static/pico.min.css HTTP/1.1")
    assert reply.status in {200, 206, 416}
    assert len(reply.text) <= len(complete.text)


# --- what is no text


@on_postgresql  # which takes no NUL in a text
@pytest.mark.parametrize("sort", NO_TEXT)
def test_a_field_that_is_no_text_breaks_no_form(site: Site, sort: str) -> None:
    """ASVS 16.5.3: PostgreSQL takes no NUL, Python writes no surrogate; neither may become a 500."""
    for person, page, path, fields in forms(site):
        start = filled_in(person, page)
        for broken in fields:
            values = {name: value + NO_TEXT[sort] * (name == broken) for name, value in fields.items()}
            body = b"&".join([start, *(name.encode() + b"=" + value for name, value in values.items())])
            assert post(person, path, body).status in {200, 302}
    assert serves(site)


def forms(site: Site) -> Iterator[tuple[Person, str, str, dict[str, bytes]]]:
    """Yield somebody who may send a form, its page, where it goes, and its fields."""
    account, owner = site.account(), site.person()
    owner.log_in(account)
    link = path_of(site.reset_link(account))
    email, old = account.email.encode(), PASSWORD.encode()
    new = dict.fromkeys(("new_password1", "new_password2"), NEW_PASSWORD.encode())
    yield owner, "/password-change/", "/password-change/", {"old_password": old, **new}
    yield site.person(), link, f"{link.rpartition('/')[0]}/set-password", new
    login = {"email": email, "password": old, "remember": b"y", "next": b"/account/"}
    for path, fields in {
        "/password-reset/": {"email": email},
        "/register/": {"email": email},
        "/login/": login,
    }.items():
        yield site.person(), path, path, fields


@on_postgresql  # which takes no NUL in a text
@pytest.mark.parametrize("sort", NO_TEXT)
def test_an_address_bar_that_is_no_text_breaks_no_page(site: Site, sort: str) -> None:
    """ASVS 16.5.3."""
    escaped = NO_TEXT[sort].decode()
    links = [f"/{page}/{escaped}/{escaped}" for page in LINKS]
    for path in (f"/{escaped}", f"/login/{escaped}", f"/static/{escaped}", f"/login/?next=/{escaped}", *links):
        assert send(site, f"GET {path} HTTP/1.1").status in {200, 404}
    assert serves(site)


@on_postgresql  # which takes no NUL in a text
@pytest.mark.parametrize("name", ["User-Agent", "Accept-Language", "X-Forwarded-For", "Cookie", "Authorization"])
def test_a_header_that_is_no_text_stops_no_email(site: Site, name: str) -> None:
    """ASVS 16.5.3: what is kept of a request goes into the database and into the email."""
    account, person = site.account(), site.person()
    body = filled_in(person, "/password-reset/") + b"&email=" + account.email.encode()
    site.let_an_hour_pass()
    assert post(person, "/password-reset/", body, f"{name}: a=\xff\xc3\xed\xa0\x80, \x85").status in {302, 400}
    assert site.reset_link(account)


# --- memory


@on_sqlite  # what is refused reaches no database
def test_nothing_of_a_flood_stays_in_memory(site: Site) -> None:
    """ASVS 15.2.2, CVE-2023-25577, CVE-2024-49767."""
    flood(site)
    before = resident(site)
    sent = sum(flood(site) for _ in range(8))
    assert sent > 16 * MIB
    assert resident(site) - before < sent / 2  # each of eight threads has memory of its own to grow into


def flood(site: Site) -> int:
    """Send everything that is refused, each from an address of its own, and return how many bytes that was."""
    person = site.person()
    start = filled_in(person) + b"&password=x&email="
    for kind, body, _ in BODIES.values():
        send(site, "POST /login/ HTTP/1.1", kind, body=body)
    for header in HEADS.values():  # each with an end of its own, or what is remembered of the first would do for all
        post(person, "/password-reset/", start, f"{header[:7900]}{token_hex(8)}")
    for address in ADDRESSES.values():
        post(person, "/login/", start + token_hex(8).encode() + address.encode())
    bodies = [*(body for _, body, _ in BODIES.values()), *map(str.encode, (*ADDRESSES.values(), *HEADS.values()))]
    return sum(map(len, bodies))
