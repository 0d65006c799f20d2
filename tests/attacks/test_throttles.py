"""The limits hold however a request is disguised, and cannot be used against others.

Each client network may send so many requests a minute to each form, each address receives so many emails, and each
pair of address and network may fail so many logins before it waits.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from secrets import token_hex
from time import sleep

import pytest

from tests.support.clock import until
from tests.support.databases import on_postgresql, on_sqlite
from tests.support.pages import csrf_token, links_in, path_of
from tests.support.passwords import NEW_PASSWORD
from tests.support.servers import Page
from tests.support.site import Account, MakeSite, Person, Site, new_address, serving
from tests.support.site_requests import FORM, computed, cookies_of, filled_in, send

pytestmark = pytest.mark.usefixtures("early_in_a_minute")

LIMIT, FREE = 5, 3
LIMITS = {"RATELIMIT_RESET": LIMIT, "RATELIMIT_REGISTER": LIMIT, "RATELIMIT_LOGIN": 12, "RATELIMIT_CONFIRM": LIMIT}
SITE_SETTINGS = {**LIMITS, "LOGIN_FREE_FAILURES": FREE, "LOGIN_FIRST_WAIT": 3, "LOGIN_LONGEST_WAIT": 12}
DEFAULTS = {"/password-reset/": 20, "/register/": 20, "/login/": 30, "/password-reset-confirm/MQ/{new}": 30}
WRONG = "not the password at all"
RESET = "/password-reset/"
# Headers in which systems looked for the client, each with what was written there to be somebody new each time.
HEADERS = {
    "X-Forwarded-For": "{new}, {mine}",
    "X-Forwarded-For of many": "{new}, {new}, 127.0.0.1, {mine}",
    "X-Forwarded-For without an address": "{new}:80, unknown, {mine}",
    "X-Forwarded-For in quotes": '"{new}, {mine}',
    "X-Real-IP": "{new}",
    "X-Client-IP": "{new}",
    "X-Cluster-Client-IP": "{new}",
    "X-Originating-IP": "{new}",
    "X-Remote-IP": "{new}",
    "X-Remote-Addr": "{new}",
    "X-Sucuri-ClientIP": "{new}",
    "Client-IP": "{new}",
    "True-Client-IP": "{new}",
    "CF-Connecting-IP": "{new}",
    "Fastly-Client-IP": "{new}",
    "Forwarded": "for={new}",
    "Via": "1.1 {new}",
    "User-Agent": "{new}",
}
PATHS = [
    "/password-reset/?{new}",
    "//password-reset/",
    "/password%2Dreset/",
    "/%70assword-reset/",
    "/password-reset/?email=x",
]
numbers = count()


def posts(person: Person, number: int, path: str = RESET, **headers: str) -> list[int]:
    """Send a form that emails nobody so many times, and return the statuses; `{new}` is another address each time."""
    fields = {"csrf_token": csrf_token(person.get(RESET)), "email": "no address", "password": "x"}

    def filled(text: str) -> str:
        return text.replace("{new}", new_address()).replace("{mine}", person.address)

    return [
        person.post(filled(path), fields, {name: filled(value) for name, value in headers.items()}).status
        for _ in range(number)
    ]


def is_limited(person: Person, path: str = RESET) -> bool:
    return posts(person, 1, path) == [429]


# --- requests of one client


@on_sqlite  # what is refused for coming too often reaches no database
@pytest.mark.parametrize("path", DEFAULTS)
def test_the_limits_are_those_that_are_written_down(engine: str, sites: MakeSite, path: str) -> None:
    """ASVS 6.1.1, 6.3.1, 6.6.3, CVE-2021-29023, CVE-2023-35172."""
    assert posts(sites(engine).person(), DEFAULTS[path] + 1, path) == [200] * DEFAULTS[path] + [429]


@on_sqlite
def test_a_limited_client_sees_how_long_to_wait(site: Site) -> None:
    """RFC 6585 section 4, RFC 9110 section 10.2.3."""
    person = site.person()
    posts(person, LIMIT)
    page = person.request_reset("nobody@example.com")
    assert page.status == 429
    assert 1 <= int(page.headers["Retry-After"]) <= 60
    assert waiting_time(page) in {f"{page.headers['Retry-After']} seconds", "1 second", "1 minute"}
    assert "<h1>" in page.text


def waiting_time(page: Page) -> str:
    """Return how long to wait, in the words of the page."""
    found = re.search(r"Try again in (\d+ (?:second|minute)s?)", page.text)
    assert found, page.text
    return found[1]


@on_sqlite
@pytest.mark.parametrize("header", HEADERS)
def test_no_header_makes_somebody_another_client(site: Site, header: str) -> None:
    """CVE-2020-35590, ASVS 4.1.3, 15.3.4: the proxy's own word is the last one, and no other counts."""
    assert posts(site.person(), LIMIT + 1, **{header.split(maxsplit=1)[0]: HEADERS[header]})[-1] == 429


@on_sqlite
def test_a_repeated_header_makes_nobody_another_client(site: Site) -> None:
    """CVE-2020-35590."""
    person = site.person()
    posts(person, LIMIT)
    token, head = csrf_token(person.get(RESET)), f"POST {RESET} HTTP/1.1"
    assert token
    assert person.post_raw(RESET, head, "Host: 127.0.0.1", f"X-Forwarded-For: {new_address()}", email="x") == 429


@on_sqlite
@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8:{0}:1::1", "2001:db8:{0}:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:{0}:1::1", "2001:0DB8:{0}:0001::2", True),
        ("2001:db8:{0}:1::1", "2001:db8:{0}:2::1", False),
        ("192.0.2.{1}", "::ffff:192.0.2.{1}", True),
        ("198.51.100.{1}", "::ffff:c633:64{1:02x}", True),
        ("::ffff:203.0.113.1", "::ffff:203.0.113.2", False),
    ],
)
def test_who_has_a_network_has_one_limit(site: Site, first: str, second: str, together: bool) -> None:
    """CVE-2021-22915: an IPv6 client has 2^64 addresses."""
    number = next(numbers)
    here, there = (site.person(address.format(f"{number + 1:x}", number + 1)) for address in (first, second))
    assert posts(here, LIMIT + 1)[-1] == 429
    assert is_limited(there) is together


@on_sqlite
@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_has_a_limit_of_its_own(site: Site, path: str) -> None:
    """CVE-2023-35172, ASVS 2.4.1: another spelling of the form is counted with it, or is no form."""
    person = site.person()
    posts(person, LIMIT)
    assert posts(person, 1, path)[0] in {404, 308, 429}
    assert is_limited(person)


@on_sqlite
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 200), ("PUT", 405), ("PATCH", 405), ("post", 400), ("POST ", 400)]
)
def test_no_other_method_sends_the_form(site: Site, method: str, status: int) -> None:
    """ASVS 4.1.4, 2.4.1: what is not counted does nothing; a form that is taken leads on (302)."""
    person = site.person()
    body = filled_in(person, RESET) + b"&email=nobody@example.com"
    assert send(site, f"{method} {RESET} HTTP/1.1", cookies_of(person), FORM, body=body).status == status


@on_sqlite
def test_a_new_browser_is_no_new_client(site: Site) -> None:
    """ASVS 2.4.1: the limit is not kept in a cookie."""
    address = new_address()
    assert [posts(site.person(address), 1) for _ in range(LIMIT + 1)] == [[200]] * LIMIT + [[429]]


@on_sqlite
def test_many_requests_at_once_are_counted_one_by_one(site: Site) -> None:
    """CVE-2024-4629, CVE-2026-26206: each of them found the count of before."""
    person = site.person()
    fields = {"csrf_token": csrf_token(person.get(RESET)), "email": "no address"}
    with ThreadPoolExecutor(16) as crowd:
        statuses = list(crowd.map(lambda _: person.post(RESET, fields).status, range(32)))
    assert sorted(statuses) == [200] * LIMIT + [429] * (32 - LIMIT)


@on_sqlite
def test_a_flood_of_clients_does_not_push_one_out_of_memory(site: Site) -> None:
    """CVE-2024-21662: the count of the one who is limited had to make room for others."""
    person = site.person()
    posts(person, LIMIT)
    crowd = site.person()
    fields = {"csrf_token": csrf_token(crowd.get(RESET)), "email": "no address"}
    for _ in range(100):
        crowd.post(RESET, fields, {"X-Forwarded-For": new_address()})
    assert is_limited(person)


@on_sqlite
def test_a_flood_of_failures_pushes_none_out_of_the_database(site: Site) -> None:
    """CVE-2024-21662: Argo CD's cache had room for 1,000."""
    email, address, now = nobody(), new_address(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    fails(site, email, FREE + 1, address)
    others = ", ".join(f"('{token_hex(32)}', '192.0.2.1', 1, '{now}')" for _ in range(2000))
    site.query(f"INSERT INTO login_failures (account, network, failures, failed_at) VALUES {others}")  # noqa: S608 (ours)
    assert fails(site, email, 1, address) == [429]


@on_sqlite
def test_nobody_uses_up_the_limit_of_another(site: Site) -> None:
    """ASVS 6.1.1: to write the address of a victim into a header counts for the one who wrote it."""
    victim = site.person()
    posts(site.person(), LIMIT + 1, **{"X-Forwarded-For": f"{victim.address}, {{mine}}", "X-Real-IP": victim.address})
    assert not is_limited(victim)


# --- email for one address


SPELLINGS = {
    "capitals": str.upper,
    "full-width": lambda email: "".join(chr(ord(letter) + 0xFEE0) for letter in email[:5]) + email[5:],
    "spaces": lambda email: f"  {email}\t",
    "Kelvin": lambda email: email.replace("k", "\u212a"),
}


def test_no_spelling_of_an_address_gets_it_more_email(site: Site) -> None:
    """ASVS 2.4.1: a space or an upper-case character made an address count as a new one, which filled the mailbox."""
    account = site.account("kalin")
    site.let_an_hour_pass()
    for spelled in (account.email, *(spell(account.email) for spell in SPELLINGS.values()), account.email):
        site.person().post_form(RESET, {}, email=spelled)
    until(lambda: waiting(site, account) <= 1, "one mail that stands for all the others")
    assert len(site.emails_to(account.email)) == 2  # the invitation, and one


@on_postgresql  # the one with collations
@pytest.mark.parametrize("change", [("@", "+1@"), ("alice.", "a.lice."), ("alice.", "alice")])
def test_an_address_that_resembles_another_is_another(site: Site, change: tuple[str, str]) -> None:
    """ASVS 2.4.1, CVE-2019-19844: dots and plus signs mean something to one provider, and nothing here."""
    account = site.account("alice")
    site.let_an_hour_pass()
    before = len(site.mail_server.messages)
    site.person().request_reset(account.email.replace(*change))
    site.wait_until_all_is_sent()
    assert len(site.mail_server.messages) == before


def waiting(site: Site, account: Account) -> int:
    """Return how many emails wait to be sent to an account."""
    ((number,),) = site.query("SELECT count(*) FROM outbox WHERE email_key = ?", account.email)
    return int(number)


def test_nobody_keeps_an_owner_from_resetting(site: Site) -> None:
    """ASVS 6.1.1: ten requests of a stranger, then the owner's; a link that works is in the mailbox."""
    account = site.account()
    site.let_an_hour_pass()
    for _ in range(2):
        stranger = site.person()
        for _ in range(LIMIT):
            stranger.request_reset(account.email)
    site.person().request_reset(account.email)
    assert site.person().choose(site.link_for(account.email, 2)).status == 302
    assert site.person().log_in(account, NEW_PASSWORD).status == 302


def test_an_owner_who_ends_a_strangers_links_need_not_wait_for_a_new_one(site: Site) -> None:
    """ASVS 6.1.1: five emails an hour, all of them asked for by a stranger."""
    account = site.account()
    site.query("DELETE FROM security_events WHERE kind = 'registered'")
    for number in range(5):
        site.query("UPDATE users SET mailed_at = NULL")
        site.person().request_reset(account.email)
        mail = site.wait_for_email(account.email, number + 2)
    owner = site.person()
    assert owner.submit(path_of(links_in(mail)[1])).status == 302
    owner.request_reset(account.email)
    assert owner.choose(site.link_for(account.email, 7)).status == 302


# --- wrong passwords


def fails(site: Site, email: str, number: int, address: str | None = None) -> list[int]:
    """Try so many wrong passwords from one network, and return the statuses."""
    return [
        try_once(site, email, WRONG, address).status for address in [address or new_address()] for _ in range(number)
    ]


def try_once(site: Site, email: str, password: str, address: str | None = None) -> Page:
    """Try a password, in a browser of its own."""
    return site.person(address).submit("/login/", email=email, password=password)


def let_the_wait_pass(site: Site) -> None:
    site.query("UPDATE login_failures SET wait_until = failed_at")


def nobody() -> str:
    """Return an address without an account."""
    return f"nobody.{token_hex(4)}@example.com"


def test_a_network_waits_longer_with_each_wrong_password(site: Site) -> None:
    """ASVS 6.3.1: twice as long each time, up to a bound; alike with and without an account."""
    for email in (site.account().email, nobody()):
        address, waits = new_address(), []
        assert fails(site, email, FREE, address) == [200] * FREE
        for _ in range(4):
            assert fails(site, email, 1, address) == [200]
            page = try_once(site, email, WRONG, address)
            waits.append((page.status, int(page.headers["Retry-After"])))
            assert waiting_time(page).split()[0] == page.headers["Retry-After"]
            let_the_wait_pass(site)
        assert waits == [(429, 3), (429, 6), (429, 12), (429, 12)]


def test_the_first_wait_is_fifteen_seconds_after_five_free_tries(engine: str, sites: MakeSite) -> None:
    """ASVS 6.1.1: the defaults, as they are written down."""
    site, address, email = sites(engine), new_address(), nobody()
    assert fails(site, email, 7, address) == [200] * 6 + [429]
    assert 10 <= int(try_once(site, email, WRONG, address).headers["Retry-After"]) <= 15


def test_the_right_password_is_refused_while_one_waits_and_taken_after_it(site: Site) -> None:
    """ASVS 6.3.1: or the wait would tell which guess was right."""
    account, address = site.account(), new_address()
    fails(site, account.email, FREE + 1, address)
    assert try_once(site, account.email, account.password, address).status == 429
    sleep(3.1)
    assert try_once(site, account.email, account.password, address).status == 302


@on_sqlite  # a hash takes no database
def test_a_try_while_one_waits_costs_no_hash(site: Site) -> None:
    """ASVS 15.2.2: further guesses cost the site no more than opening a page."""
    account, address = site.account(), new_address()
    person, before = site.person(address), computed(site)
    fails(site, account.email, FREE + 1, address)
    looked_at = (computed(site) - before) / (FREE + 1)
    before = computed(site)
    assert set(fails(site, account.email, 6, person.address)) == {429}
    assert (computed(site) - before) / 6 < looked_at / 2


def test_nobody_locks_somebody_else_out(site: Site) -> None:
    """ASVS 6.1.1, CVE-2024-1722: another network has failures of its own."""
    account = site.account()
    for _ in range(3):
        assert fails(site, account.email, FREE + 2)[-1] == 429
    assert site.person().log_in(account).status == 302


def test_who_waits_for_one_account_may_log_in_to_another(site: Site) -> None:
    """ASVS 6.1.1: people share a network."""
    address, account = new_address(), site.account()
    assert fails(site, nobody(), FREE + 2, address)[-1] == 429
    assert site.person(address).log_in(account).status == 302


@pytest.mark.parametrize("has_account", [True, False])
def test_no_spelling_of_an_address_gets_it_more_guesses(site: Site, has_account: bool) -> None:
    """ASVS 6.3.1."""
    email, address = site.account("kalin").email if has_account else f"kalin.{nobody()}", new_address()
    fails(site, email, FREE + 1, address)
    for spell in SPELLINGS.values():
        assert fails(site, spell(email), 1, address) == [429], spell(email)


@on_sqlite  # the headers end before the database
def test_no_header_gets_a_network_more_guesses(site: Site) -> None:
    """CVE-2020-35590."""
    person, email = site.person(), nobody()
    fails(site, email, FREE + 1, person.address)
    for value in HEADERS["X-Forwarded-For"], HEADERS["X-Forwarded-For of many"]:
        forwarded = value.format(new=new_address(), mine=person.address)
        assert person.post_form("/login/", {"X-Forwarded-For": forwarded}, email=email, password=WRONG).status == 429


@on_sqlite  # a network is made before the database
def test_addresses_of_one_network_guess_together(site: Site) -> None:
    """CVE-2021-22915."""
    number, email = f"{next(numbers) + 4096:x}", nobody()
    fails(site, email, FREE + 1, f"2001:db8:{number}:1::1")
    for address in (f"2001:db8:{number}:1:ffff::1", f"2001:DB8:{number}:0001::2"):
        assert fails(site, email, 1, address) == [429], address


def test_guesses_at_once_are_counted_one_by_one(site: Site) -> None:
    """CVE-2024-4629, CVE-2026-26206: of many at once no more are looked at than one after another."""
    email, people = site.account().email, [site.person(address) for address in [new_address()] for _ in range(10)]
    forms = [
        (person, {"csrf_token": csrf_token(person.get("/login/")), "email": email, "password": WRONG})
        for person in people
    ]
    with ThreadPoolExecutor(10) as crowd:
        statuses = list(crowd.map(lambda form: form[0].post("/login/", form[1]).status, forms))
    assert sorted(statuses) == [200] * (FREE + 1) + [429] * (10 - FREE - 1)


@on_sqlite  # a start is the same on both
def test_a_restart_forgets_no_failure(site: Site) -> None:
    """CVE-2024-21652: a crash gave all guesses back."""
    address, email = new_address(), nobody()
    fails(site, email, FREE, address)
    site.server.kill9()
    site.server.start()
    assert fails(site, email, 2, address) == [200, 429]


@on_postgresql  # which several machines share
def test_two_servers_count_together(site: Site) -> None:
    """CVE-2021-41177: each process with a memory of its own is one more chance each."""
    address, email = new_address(), nobody()
    with another_server_of(site) as other:
        fails(site, email, FREE, address)
        assert fails(other, email, 2, address) == [200, 429]
    assert fails(site, email, 1, address) == [429]


@contextmanager
def another_server_of(site: Site) -> Iterator[Site]:
    """Run a second server with the same database."""
    other = Site(site.folder, site.database, site.mail_server, **SITE_SETTINGS)
    with serving(other):
        yield other


@pytest.mark.parametrize("way", ["a login", "a reset"])
def test_who_gets_in_waits_no_more(site: Site, way: str) -> None:
    """ASVS 6.1.1: a completed reset clears the failures from anywhere, a login those from its network."""
    account, address = site.account(), new_address()
    fails(site, account.email, FREE if way == "a login" else FREE + 1, address)
    if way == "a login":
        assert try_once(site, account.email, account.password, address).status == 302
    else:
        assert site.person().choose(site.reset_link(account), account.password).status == 302
    assert fails(site, account.email, FREE + 1, address) == [200] * (FREE + 1)


def test_a_request_for_a_reset_clears_no_failure(site: Site) -> None:
    """ASVS 6.3.1: anybody can send one."""
    account, address = site.account(), new_address()
    fails(site, account.email, FREE + 1, address)
    site.person().choose(site.reset_link(account), "short")
    assert fails(site, account.email, 1, address) == [429]


def test_the_old_password_is_guessed_no_faster_on_the_page_of_its_change(site: Site) -> None:
    """ASVS 6.3.4: who found an open browser may not guess there what the login page would refuse."""
    account, person = site.account(), site.person()
    person.log_in(account)
    new = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    statuses = [person.submit("/password-change/", old_password=WRONG, **new).status for _ in range(FREE + 2)]
    assert statuses == [200] * (FREE + 1) + [429]
