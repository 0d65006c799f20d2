"""A link opens one page of one account, once and in time. A similar link opens none."""

import string
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from urllib.parse import quote, urlencode

import pytest
from itsdangerous import base64_decode

from tests.support.databases import on_postgresql, on_sqlite
from tests.support.links import (
    DEAD,
    EXPIRED,
    PAGES,
    Link,
    attack,
    credentials,
    encoded,
    forged,
    is_alive,
    is_dead,
    new_passwords,
    one_of_each,
)
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD
from tests.support.servers import Gunicorn, Page
from tests.support.site import Account, MakeSite, Person, Site

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
HOUR, DAY = 3600, 86400
LIFETIMES = {"reset": HOUR, "cancel": HOUR, "invite": 3 * DAY, "notice": 7 * DAY}


@cache
def mailed(site: Site) -> tuple[Account, Link]:
    """Return an account and its link, for attacks that must change neither."""
    account = site.account()
    return account, Link.of(site.reset_link(account))


def survives(site: Site, path: object, account: Account, link: Link) -> list[Page]:
    """Attack at a path, see that the account and its own link are as before, and return the answers."""
    before = credentials(site, account)
    answers = attack(site, path)
    assert credentials(site, account) == before
    assert is_alive(site, link)
    return answers


NOT_TOKENS = {
    "quote": "'",
    "always true": quote("' OR '1'='1"),
    "NUL": "%00",
    "empty object": "%7B%7D",
    "empty array": "[]",
    "null": "null",
    "undefined": "undefined",
    "true": "true",
    "zero": "0",
    "a loose number": "0e1",
    "two dots and more": "..%2F",
    "space": "%20",
    "the page after the redirect": "set-password",
    "no UTF-8": "%FF%FE",
    "full-width digits": quote("１２３４５６.７８９"),
    "3,000 letters": "A" * 3000,
    "1,500 dots": "A." * 1500,
    "zeros in the right shape": "AAAAAA." + "A" * 43,
}


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("token", NOT_TOKENS.values(), ids=NOT_TOKENS)
def test_what_is_no_token_opens_no_page(site: Site, token: str):
    """CVE-2008-3681 (Joomla: a quote for a token), CVE-2019-18818 (Strapi: an empty object), ASVS 9.1.1."""
    account, link = mailed(site)
    assert all(is_dead(page) for page in survives(site, replace(link, token=token), account, link))


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("rest", ["", "/", "//", "/%2F"])
def test_a_link_without_a_token_is_no_page(site: Site, rest: str):
    """CVE-2019-18818 (Strapi), CVE-2008-3681 (Joomla): a token that is missing or empty."""
    account, link = mailed(site)
    opened, *_ = survives(site, f"/{link.page}/{link.uid}{rest}", account, link)
    assert opened.status == 404 or is_dead(opened)


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("body", [b'{"token": {}}', b'{"token": {"$gt": ""}}', b'{"token": [""]}', b"[]", b"null"])
def test_a_token_sent_as_json_is_refused(site: Site, body: bytes):
    """CVE-2019-18818 (Strapi: `{"code": {}}` set the administrator's password)."""
    account, link = mailed(site)
    before = credentials(site, account)
    person = site.person()
    headers = {"Content-Type": "application/json", "X-CSRFToken": new_passwords(person)["csrf_token"]}
    assert person.send("POST", str(replace(link, token="set-password")), headers, body).status == 400
    assert credentials(site, account) == before


def other_spelling(token: str, step: int) -> str:
    """Return the token with another last character that stands for the same bits: two of its six don't count."""
    return token[:-1] + BASE64[BASE64.index(token[-1]) ^ step]


def moment_of(token: str) -> int:
    return int.from_bytes(base64_decode(token.partition(".")[0]), "big")


def at(moment: int, token: str, length: int = 4) -> str:
    """Return the token with another time in it."""
    return encoded(moment.to_bytes(length, "big")) + "." + token.partition(".")[2]


TAMPERED: dict[str, Callable[[str], str]] = {
    "last character spelled otherwise (1)": lambda token: other_spelling(token, 1),
    "last character spelled otherwise (2)": lambda token: other_spelling(token, 2),
    "last character spelled otherwise (3)": lambda token: other_spelling(token, 3),
    "signature with another bit": lambda token: token[:10] + BASE64[BASE64.index(token[10]) ^ 1] + token[11:],
    "signature one shorter": lambda token: token[:-1],
    "signature halved": lambda token: token[:-22],
    "signature empty": lambda token: token.partition(".")[0] + ".",
    "time alone": lambda token: token.partition(".")[0],
    "signature alone": lambda token: token.partition(".")[2],
    "time empty": lambda token: "." + token.partition(".")[2],
    "one longer": lambda token: token + "A",
    "twice": lambda token: f"{token}.{token}",
    "padded": lambda token: token + "%3D",
    "line end after": lambda token: token + "%0A",
    "space before": lambda token: "%20" + token,
    "NUL after": lambda token: token + "%00",
    "NUL within": lambda token: token.replace(".", "%00."),
    "other case": str.swapcase,
    "encoded twice": lambda token: token.replace(".", "%252E"),
    "another separator": lambda token: token.replace(".", ":"),
    "full-width dot": lambda token: token.replace(".", quote("．")),
    "a second later": lambda token: at(moment_of(token) + 1, token),
    "a second earlier": lambda token: at(moment_of(token) - 1, token),
    "from the year 2100": lambda token: at(4102444800, token),
    "from 1970": lambda token: at(0, token),
    "time with a leading zero": lambda token: at(moment_of(token), token, 5),
}


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_a_token_that_was_changed_opens_no_page(site: Site, tamper: Callable[[str], str]):
    """ASVS 9.1.1: the signature covers all of it, and has one spelling."""
    account, link = mailed(site)
    token = tamper(link.token)
    assert token != link.token
    assert all(is_dead(page) for page in survives(site, replace(link, token=token), account, link))


UIDS = {
    "padded": "{uid}%3D",
    "padded twice": "{uid}%3D%3D",
    "digits": "{number}",
    "space after": "{uid}%20",
    "line end within": "{first}%0A{rest}",
    "NUL after": "{uid}%00",
    "a character more": "{uid}A",
    "the other base64": quote("++++"),
    "null": "null",
}
NUMBERS = {
    "leading zero": "0{number}",
    "plus": "+{number}",
    "minus": "-{number}",
    "space": " {number}",
    "line end": "{number}\n",
    "NUL": "{number}\0",
    "underscore": "0_{number}",
    "decimal": "{number}.0",
    "exponent": "{number}e0",
    "hexadecimal": "{number:#x}",
    "full-width": "{wide}",
    "list": "[{number}]",
    "zero": "0",
    "negative": "-1",
    "2^31": str(2**31),
    "2^32 more": "{overflown}",
    "2^63": str(2**63),
    "1,000 digits": "9" * 1000,
    "superscript": "²",
    "SQL": "{number} OR 1=1",
}
TO_WIDE = {ord(digit): ord(digit) + 0xFEE0 for digit in string.digits}


def spelled(template: str, number: int, uid: str) -> str:
    values = {"first": uid[:1], "rest": uid[1:], "wide": str(number).translate(TO_WIDE), "overflown": 2**32 + number}
    return template.format(number=number, uid=uid, **values)


@on_postgresql  # the stricter one about what is a number
@pytest.mark.parametrize("template", UIDS.values(), ids=UIDS)
def test_a_user_id_is_spelled_one_way(site: Site, template: str):
    """ASVS 9.1.1, 15.3.5: what decodes to the same id is dead all the same, and never a server error."""
    account, link = mailed(site)
    uid = spelled(template, credentials(site, account)[0], link.uid)
    assert uid != link.uid
    assert all(is_dead(page) for page in survives(site, replace(link, uid=uid), account, link))


@on_postgresql  # the stricter one about what is a number
@pytest.mark.parametrize("template", NUMBERS.values(), ids=NUMBERS)
def test_a_user_id_is_a_plain_number(site: Site, template: str):
    """ASVS 15.3.5: `int()` takes more for the same number, and databases know fewer numbers than Python."""
    account, link = mailed(site)
    uid = encoded(spelled(template, credentials(site, account)[0], link.uid))
    assert uid != link.uid
    assert all(is_dead(page) for page in survives(site, replace(link, uid=uid), account, link))


def test_a_link_opens_no_account_with_the_same_password(site: Site):
    """CVE-2015-2559 (Drupal: of accounts with the same hash, the link of one opened the other)."""
    account, link = mailed(site)
    other = site.account("bob")
    same = "password_hash, stamp, last_login"
    sql = f"UPDATE users SET ({same}) = (SELECT {same} FROM users WHERE email = ?) WHERE email = ?"  # noqa: S608 (ours)
    site.query(sql, account.email, other.email)
    before = credentials(site, other)
    uid = encoded(str(before[0]))
    assert all(is_dead(page) for page in survives(site, replace(link, uid=uid), account, link))
    assert credentials(site, other) == before


def test_the_form_behind_ones_own_link_sets_no_other_password(site: Site):
    """CVE-2015-2559 (Drupal): the user of a valid link is exchanged, here at the last step."""
    account, link = mailed(site)
    attacker = site.person()
    attacker.get(path_of(site.reset_link(site.account("mallory"))))
    before = credentials(site, account)
    assert is_dead(attacker.post(str(replace(link, token="set-password")), new_passwords(attacker)))
    assert credentials(site, account) == before


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("place", ["query", "form", "headers"])
def test_a_token_is_taken_from_the_path_alone(site: Site, place: str):
    """ASVS 15.3.7 (parameter pollution): the same names elsewhere change nothing."""
    account, link = mailed(site)
    before = credentials(site, account)
    person = site.person()
    sent = {"token": link.token, "uidb64": link.uid, "_password_reset_token": link.token}
    query = f"?{urlencode(sent)}" if place == "query" else ""
    fields = new_passwords(person) | (sent if place == "form" else {})
    path = f"{replace(link, token='set-password')}{query}"
    assert is_dead(person.post(path, fields, sent if place == "headers" else {}))
    assert credentials(site, account) == before


@on_sqlite  # no database knows of browsers
def test_the_page_after_the_redirect_opens_in_no_other_browser(site: Site):
    """ASVS 6.4.3: its address, seen over a shoulder or in a history, is not enough."""
    account, link = mailed(site)
    page = site.person().get(str(link))
    assert "csrf_token" in page.text
    assert all(is_dead(answer) for answer in survives(site, page.path, account, link))


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("part", ["whole", "signature"])
@pytest.mark.parametrize("what", ["session", "form"])
def test_what_is_signed_for_a_session_or_a_form_is_no_token(site: Site, what: str, part: str):
    """ASVS 9.2.2: the site signs those for anybody, with the same key."""
    account, link = mailed(site)
    person = site.person()
    form = csrf_token(person.get("/login/"))
    token = form if what == "form" else person.cookies()["pwreset_session"]
    token = token if part == "whole" else token.partition(".")[2]
    assert all(is_dead(page) for page in survives(site, replace(link, token=token), account, link))


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("purpose", PAGES)
def test_a_link_opens_the_page_of_its_purpose(site: Site, purpose: str):
    """ASVS 9.2.2."""
    link = one_of_each(site)[purpose]
    assert link.page == PAGES[purpose]
    assert is_alive(site, link)


MISUSES = [(purpose, other) for purpose in PAGES for other in sorted({*PAGES.values()} - {PAGES[purpose]})]


@on_sqlite  # no database judges a token
@pytest.mark.parametrize(("purpose", "other"), MISUSES)
def test_a_link_opens_the_page_of_no_other_purpose(site: Site, purpose: str, other: str):
    """ASVS 9.2.2: above all, what says "This wasn't me" sets no password."""
    link = one_of_each(site)[purpose]
    assert all(is_dead(answer) for answer in attack(site, replace(link, page=other)))
    assert is_alive(site, link)


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("purpose", PAGES)
def test_with_database_and_key_a_link_can_be_forged(site: Site, purpose: str):
    """What the next tests forge would open its page, but for the one thing that each of them says."""
    account, _ = mailed(site)
    assert is_alive(site, forged(site, account, purpose))


KEYS = {
    "no key": "",
    "secret": "secret",
    "the key's first half": Gunicorn.secret_key[:32],
    "the key in small letters": Gunicorn.secret_key.lower(),
}


@on_sqlite  # no database judges a token
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("purpose", PAGES)
def test_who_reads_the_database_forges_no_link_without_the_key(site: Site, purpose: str, key: str):
    """ASVS 9.1.1, 6.5.2: no token is stored, nor all that one is made of."""
    account, link = mailed(site)
    assert all(is_dead(page) for page in survives(site, forged(site, account, purpose, key), account, link))


@on_sqlite  # nothing of a link's time is in the database
@pytest.mark.parametrize(("purpose", "lifetime"), LIFETIMES.items())
def test_a_link_lives_as_long_as_its_email_says(site: Site, purpose: str, lifetime: int):
    """ASVS 9.2.1."""
    account, _ = mailed(site)
    assert is_alive(site, forged(site, account, purpose, age=lifetime - 60))


@on_sqlite  # nothing of a link's time is in the database
@pytest.mark.parametrize(("purpose", "lifetime"), LIFETIMES.items())
def test_a_link_is_dead_after_its_time(site: Site, purpose: str, lifetime: int):
    """ASVS 6.4.1, 6.5.5, 9.2.1."""
    account, link = mailed(site)
    opened, sent, _ = survives(site, forged(site, account, purpose, age=lifetime + 2), account, link)
    assert is_dead(opened, EXPIRED)
    assert is_dead(sent, EXPIRED)


@on_sqlite  # nothing of a link's time is in the database
@pytest.mark.parametrize("purpose", PAGES)
def test_a_link_from_the_future_is_dead(site: Site, purpose: str):
    """ASVS 9.2.1: signed by a clock that was ahead, it would live too long."""
    account, link = mailed(site)
    assert all(is_dead(page) for page in survives(site, forged(site, account, purpose, age=-60), account, link))


@on_sqlite  # nothing of a link's time is in the database
def test_a_form_that_was_opened_in_time_is_dead_after_it(engine: str, sites: MakeSite):
    """ASVS 6.5.5: an open page does not prolong the life of its link."""
    site = sites(engine, PASSWORD_RESET_TIMEOUT=1)
    account, owner = site.account(), site.person()
    before = credentials(site, account)
    link = site.reset_link(account)
    form = owner.get(path_of(link))
    time.sleep(moment_of(Link.of(link).token) + 2.05 - time.time())
    assert is_dead(owner.fill_in(form, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD), EXPIRED)
    assert credentials(site, account) == before


def test_a_used_link_is_dead(site: Site):
    """ASVS 6.5.1: somebody who finds the email later cannot set a second password."""
    account = site.account()
    link = site.reset_link(account)
    assert site.person().choose(link).status == 302
    after = credentials(site, account)
    assert all(is_dead(page) for page in attack(site, path_of(link)))
    assert credentials(site, account) == after


def log_in(site: Site, account: Account, _: Person) -> None:
    site.person().log_in(account)


def change_the_password(_: Site, account: Account, owner: Person) -> None:
    owner.submit(
        "/password-change/",
        old_password=account.password,
        new_password1=NEW_PASSWORD,
        new_password2=NEW_PASSWORD,
    )


def sign_out_everywhere(_: Site, __: Account, owner: Person) -> None:
    owner.post("/account/sign-out-everywhere/", {"csrf_token": csrf_token(owner.get("/account/"))})


def use_another_link(site: Site, account: Account, owner: Person) -> None:
    owner.choose(site.reset_link(account))


def switch_off(site: Site, account: Account, _: Person) -> None:
    site.query("UPDATE users SET is_active = false WHERE email = ?", account.email)


def deactivate_and_activate(site: Site, account: Account, _: Person) -> None:
    site.flask("users", "deactivate", account.email)
    site.flask("users", "activate", account.email)


def change_the_address(site: Site, account: Account, _: Person) -> None:
    address = "new." + account.email
    site.query("UPDATE users SET email = ?, email_key = ? WHERE email = ?", address, address, account.email)


ENDS = [
    log_in,
    change_the_password,
    sign_out_everywhere,
    use_another_link,
    switch_off,
    deactivate_and_activate,
    change_the_address,
]


@pytest.mark.parametrize("end", ENDS)
def test_a_link_dies_with(site: Site, end: Callable[[Site, Account, Person], None]):
    """ASVS 6.4.3: the account is no longer as it was when the link was emailed."""
    account, owner = site.account(), site.person()
    owner.log_in(account)
    link = path_of(site.reset_link(account))
    assert is_alive(site, link)
    end(site, account, owner)
    assert all(is_dead(page) for page in attack(site, link))


@on_sqlite  # no database judges a method
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_an_email_scanner_uses_no_link_up(site: Site, method: str):
    """ASVS 3.5.3: filters follow links before the email is read."""
    account = site.account()
    link = site.reset_link(account)
    scanner = site.person()
    for path in (path_of(link), f"{path_of(link).rpartition('/')[0]}/set-password") * 2:
        scanner.send(method, path, {})
    assert site.person().choose(link).status == 302


def dead_links(site: Site) -> list[Link]:
    """Return links that are dead for every cause but their age."""
    _, link = mailed(site)
    gone = site.account("gone")
    of_gone = Link.of(site.reset_link(gone))
    site.query("UPDATE users SET is_active = false WHERE email = ?", gone.email)
    nobody = replace(link, uid=encoded(str(2**31 - 1)))
    return [replace(link, token="AAAAAA." + "A" * 43), of_gone, nobody, replace(nobody, token="0")]


def test_a_dead_link_does_not_tell_who_has_an_account(site: Site):
    """ASVS 6.3.8: changed, deactivated, unknown: the same pages, headers and status."""
    links = dead_links(site)
    for page in PAGES.values():
        answers = [attack(site, replace(link, page=page)) for link in links]
        seen = [[(answer.status, answer.text, answer.headers.keys()) for answer in answered] for answered in answers]
        assert DEAD in answers[0][0].text
        assert all(others == seen[0] for others in seen[1:])


def test_a_dead_link_writes_nothing(site: Site):
    """ASVS 2.4.1: nobody fills the database by guessing."""
    links = [replace(link, page=page) for link in dead_links(site) for page in PAGES.values()]
    site.wait_until_all_is_sent()
    counts = "SELECT (SELECT count(*) FROM security_events), (SELECT count(*) FROM outbox)"
    before = site.query(counts)
    for link in links:
        attack(site, link)
    assert site.query(counts) == before
