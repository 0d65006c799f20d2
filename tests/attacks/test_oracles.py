"""No answer, cookie or stored row that a stranger can see reveals whether an address has an account.

Time is measured by `make timing`; here the tests only show that no hash is skipped, because a test of some seconds
cannot distinguish smaller differences from noise.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.cookies import SimpleCookie
from secrets import token_hex

import pytest

from tests.support.clock import until
from tests.support.databases import on_sqlite
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import PASSWORD
from tests.support.raw_http import readable
from tests.support.servers import Page, free_port
from tests.support.site import Account, MakeSite, Person, Site
from tests.support.site_requests import computed

DONE = {"/password-reset/": "/password-reset/done/", "/register/": "/register/done/"}
LINKS = ("password-reset-confirm", "password-reset-cancel", "account-secure")
WRONG = "not the password at all"
NOBODY = "nobody"
WAIT = re.compile(r"(?<=Try again in )\d+ \w+")
TOKEN = re.compile(
    r"""(?<=name="csrf_token"\ type="hidden"\ value=")[^"]+    # as WTForms writes it
    | (?<=name="csrf_token"\ value=")[^"]+                     # and we, where there is no form
    | \b[0-9a-f]{40}\b""",
    re.VERBOSE,
)
Walk = Callable[[Person, str], list[Page]]


def new_address() -> str:
    """Return one of those addresses of one length that nobody ever had."""
    return f"{token_hex(6)}@example.com"


@cache
def accounts(site: Site) -> dict[str, str]:
    """Return the address of an account of each sort."""
    made = {sort: new_address() for sort in ("known", "deactivated", "signed in", "refused", "mailed just now")}
    for address in made.values():
        account = site.register(address)
        if address == made["signed in"]:
            site.person().log_in(account)
    assert site.flask("users", "deactivate", made["deactivated"]).returncode == 0
    made["never finished"] = new_address()
    site.person().submit("/register/", email=made["never finished"])
    site.link_for(made["never finished"])
    with failing(site, "rcpt_reply", "550 5.1.1 No such user"):
        site.person().request_reset(made["refused"])
    return made


@pytest.fixture
def people(site: Site) -> dict[str, str]:
    """Return an address of each sort; who has no account may have one after the test."""
    made = accounts(site)
    site.let_an_hour_pass()
    site.person().request_reset(made["mailed just now"])
    return {**made, NOBODY: new_address()}


@pytest.fixture
def few(people: dict[str, str]) -> dict[str, str]:
    """Return what matters most of it, for walks that take long."""
    return {sort: people[sort] for sort in (NOBODY, "known", "never finished")}


@contextmanager
def failing(site: Site, stage: str, reply: str) -> Iterator[None]:
    """Let the mail server answer so at a stage, until it did."""
    told: list[str] = []
    setattr(site.mail_server, stage, lambda: told.append(reply) or reply)
    try:
        yield
        until(lambda: told, "a mail that failed")
    finally:
        setattr(site.mail_server, stage, None)


# --- what is seen


@dataclass(frozen=True)
class Seen:
    """An answer without what differs anyway: the time, the CSRF token, signatures, and the address as it was typed."""

    status: int
    headers: tuple[tuple[str, str], ...]
    text: str


def seen(page: Page, typed: str) -> Seen:
    """Return what an answer shows to somebody who looks at every byte."""
    text = without(typed, page.text)
    replaced = {"Date": "", "Retry-After": "", "Content-Length": str(len(text))}
    assert page.headers["Content-Length"] == str(len(page.text.encode()))
    shown = [(name, replaced.get(name, value)) for name, value in page.headers.items()]
    readable = [(name, without_signature(value) if name == "Set-Cookie" else value) for name, value in shown]
    return Seen(page.status, tuple((name, without(typed, value)) for name, value in readable), text)


def without(typed: str, text: str) -> str:
    """Blank CSRF tokens, how long to wait, and an address, also where it was changed into lower case."""
    return re.sub(re.escape(typed), "ADDRESS", WAIT.sub("WAIT", TOKEN.sub("TOKEN", text)), flags=re.IGNORECASE)


def without_signature(cookie: str) -> str:
    """Return a cookie's name and attributes, and what anybody can read in the session; its length says no more."""
    ((name, morsel),) = SimpleCookie(cookie).items()
    return f"{name}={readable(morsel.value)}; {cookie.partition('; ')[2]}"


# --- what is done


def asks(path: str) -> Walk:
    """Return the walk of somebody who sends a form twice and looks at the page after it."""

    def walk(person: Person, typed: str) -> list[Page]:
        twice = [(person.post_form(path, {}, email=typed), person.get(DONE[path])) for _ in range(2)]
        return [page for pages in twice for page in pages]

    return walk


def asks_without_a_token(path: str) -> Walk:
    return lambda person, typed: [person.post(path, {"email": typed, "password": WRONG})]


def asks_too_often(path: str) -> Walk:
    """Return the walk of somebody who is refused at the second request, since others went before."""

    def walk(person: Person, typed: str) -> list[Page]:
        token = csrf_token(person.get(path))
        words = [*["no address"] * 19, typed, typed]
        return [person.post(path, {"email": word, "csrf_token": token}) for word in words][-2:]

    return walk


def logs_in(*passwords: str) -> Walk:
    return lambda person, typed: [person.post_form("/login/", {}, email=typed, password=word) for word in passwords]


def in_capitals(walk: Walk) -> Walk:
    return lambda person, typed: walk(person, typed.upper())


WALKS: dict[str, Walk] = {
    "a reset": asks("/password-reset/"),
    "a registration": asks("/register/"),
    "a reset without a token": asks_without_a_token("/password-reset/"),
    "a registration without a token": asks_without_a_token("/register/"),
    "a login without a token": asks_without_a_token("/login/"),
    "wrong passwords": logs_in(WRONG, "", "!", "a" * 3000, "a" * 30_000),
    "a reset in capitals": in_capitals(asks("/password-reset/")),
    "a registration in capitals": in_capitals(asks("/register/")),
    "a login in capitals": in_capitals(logs_in(WRONG)),
}
LONG_WALKS: dict[str, Walk] = {
    "resets": asks_too_often("/password-reset/"),
    "registrations": asks_too_often("/register/"),
    "wrong passwords": logs_in(*[WRONG] * 7),
}


def shown_to(person: Person, walk: Walk, typed: str) -> list[Seen]:
    return [seen(page, typed) for page in walk(person, typed)]


@pytest.mark.parametrize("walk", WALKS)
def test_every_byte_is_the_same_for_every_address(site: Site, people: dict[str, str], walk: str) -> None:
    """ASVS 6.3.8, CVE-2021-21424, CVE-2024-39329: status, headers, cookies, text and length."""
    assert_alike(site, WALKS[walk], people)


@on_sqlite  # a refused form reaches no database
@pytest.mark.parametrize("walk", LONG_WALKS)
def test_every_byte_of_a_refusal_is_the_same(site: Site, few: dict[str, str], walk: str) -> None:
    """ASVS 6.3.8."""
    assert_alike(site, LONG_WALKS[walk], few)


def assert_alike(site: Site, walk: Walk, people: dict[str, str]) -> None:
    """Go the walk for each address, in a browser of its own, and compare what is shown."""
    shown = {sort: shown_to(site.person(), walk, typed) for sort, typed in people.items()}
    assert shown == dict.fromkeys(people, shown[NOBODY])


@on_sqlite  # the walks are the same on both
def test_the_walks_go_where_they_should(site: Site, people: dict[str, str]) -> None:
    """What those tests compare is what they say: answers, refusals and waits."""
    walks = [WALKS["a reset"], WALKS["a login without a token"], WALKS["wrong passwords"], *LONG_WALKS.values()]
    statuses = [[page.status for page in walk(site.person(), people["known"])] for walk in walks]
    assert statuses == [[302, 200, 302, 200], [400], [200] * 5, [302, 429], [302, 429], [200] * 6 + [429]]


def test_a_spelling_of_ones_own_tells_no_more(site: Site, few: dict[str, str]) -> None:
    """ASVS 6.3.8, CVE-2019-19844: full-width characters find the account, and only the email shows it."""
    wide = {sort: "".join(chr(ord(char) + 0xFEE0) for char in typed[:12]) + typed[12:] for sort, typed in few.items()}
    for walk in (asks("/password-reset/"), asks("/register/"), logs_in(WRONG)):
        assert_alike(site, walk, wide)


@on_sqlite  # the pages are the same on both
@pytest.mark.parametrize("path", DONE)
def test_who_is_signed_in_learns_no_more_of_others(site: Site, people: dict[str, str], path: str) -> None:
    """CVE-2021-21424: the answers to somebody with an account of their own."""
    person = site.person()
    person.log_in(site.account())
    shown = {sort: shown_to(person, asks(path), typed) for sort, typed in people.items()}
    assert shown == dict.fromkeys(people, shown[NOBODY])


@on_sqlite  # the mail server is the same on both
@pytest.mark.parametrize("path", DONE)
@pytest.mark.parametrize(
    ("stage", "reply"), [("rcpt_reply", "550 5.1.1 No such user"), ("data_reply", "451 4.3.0 Later")]
)
def test_an_email_that_is_refused_tells_nothing(
    site: Site, few: dict[str, str], path: str, stage: str, reply: str
) -> None:
    """CVE-2024-45231: requests for those who have an account failed with their mail."""
    with failing(site, stage, reply):
        before = {sort: shown_to(site.person(), asks(path), typed) for sort, typed in few.items()}
    after = {sort: shown_to(site.person(), asks(path), typed) for sort, typed in few.items()}
    assert before == after == dict.fromkeys(few, before[NOBODY])


@on_sqlite
def test_a_mail_server_that_is_away_tells_nothing(engine: str, sites: MakeSite) -> None:
    """CVE-2024-45231: "only when e-mail sending is consistently failing"."""
    site, two = sites(engine, EMAIL_PORT=free_port()), {sort: new_address() for sort in (NOBODY, "known")}
    created = site.flask("users", "create", two["known"], "--password-stdin", stdin=PASSWORD)
    assert created.returncode == 0
    walk = asks("/password-reset/")
    before = {sort: shown_to(site.person(), walk, typed) for sort, typed in two.items()}
    until(lambda: "No email" in site.server.log(), "a warning")
    after = {sort: shown_to(site.person(), walk, typed) for sort, typed in two.items()}
    assert before == after == dict.fromkeys(two, before[NOBODY])


# --- what is written and computed


def test_a_failed_login_writes_as_much_for_every_address(site: Site, people: dict[str, str]) -> None:
    """ASVS 6.3.8, 16.3.1."""
    written = {
        sort: written_by(site, lambda typed=typed: site.person().post_form("/login/", {}, email=typed, password=WRONG))
        for sort, typed in people.items()
    }
    assert written == dict.fromkeys(people, (1, 1))


def written_by(site: Site, act: Callable[[], object]) -> tuple[int, int]:
    """Return how many failures were counted, and how many were recorded as events."""
    before = rows(site)
    act()
    return tuple(after - then for after, then in zip(rows(site), before, strict=True))


def rows(site: Site) -> tuple[int, int]:
    ((counted,),) = site.query("SELECT count(*) FROM login_failures")
    ((recorded,),) = site.query("SELECT count(*) FROM security_events WHERE kind = 'login_failed'")
    return counted, recorded


@on_sqlite  # a hash takes no database
@pytest.mark.parametrize("password", [WRONG, "a" * 1000], ids=["short", "long"])
def test_no_hash_is_skipped_for_any_address(site: Site, people: dict[str, str], password: str) -> None:
    """CVE-2024-39329, CVE-2016-2513, CVE-2016-6210 (long ones): a login that hashes nothing costs a quarter."""
    costs = {sort: min(cost_of_a_login(site, typed, password) for _ in range(4)) for sort, typed in people.items()}
    assert max(costs.values()) < 2 * min(costs.values()), costs


def cost_of_a_login(site: Site, typed: str, password: str) -> float:
    """Return the seconds of computing that an answer takes, from a network where nobody waits."""
    person = site.person()
    fields = {"email": typed, "password": password, "csrf_token": csrf_token(person.get("/login/"))}
    before = computed(site)
    assert person.post("/login/", fields).status == 200
    return computed(site) - before


def test_the_marker_of_no_password_is_no_password(site: Site, people: dict[str, str]) -> None:
    """CVE-2024-39329: who reads the database can't log in with what stands in the place of a hash."""
    ((marker,),) = site.query("SELECT password_hash FROM users WHERE email = ?", people["never finished"])
    assert site.person().log_in(Account(people["never finished"], marker)).status == 200


# --- links


@pytest.mark.parametrize("kind", LINKS)
def test_a_dead_link_does_not_tell_whose_it_is(site: Site, people: dict[str, str], kind: str) -> None:
    """ASVS 6.3.8: ids are small numbers, and anybody can try them all."""
    _, _, token = path_of(site.reset_link(Account(people["known"]))).strip("/").split("/")
    uids = {sort: uid_of(site, typed) for sort, typed in people.items()} | {
        "no number": "x",
        "a large number": uid(2**40),
    }
    paths = {sort: f"/{kind}/{mine}/{token[:-4]}AAAA" for sort, mine in uids.items()}
    shown = {
        sort: shown_to(site.person(), lambda person, path: [person.get(path)], path) for sort, path in paths.items()
    }
    assert shown == dict.fromkeys(shown, shown[NOBODY])
    assert "This link is no longer valid." in shown[NOBODY][0].text


def uid_of(site: Site, address: str) -> str:
    """Return what links to an account hold, and for nobody what the next account's would."""
    found = site.query("SELECT id FROM users WHERE email = ?", address) or site.query("SELECT max(id) + 1 FROM users")
    return uid(found[0][0])


def uid(number: int) -> str:
    return urlsafe_b64encode(str(number).encode()).rstrip(b"=").decode()
