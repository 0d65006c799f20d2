"""An owner who reads the email gets the account back, whatever somebody else did first."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.databases import on_sqlite
from tests.support.links import EXPIRED, Link, attack, cancel_link, credentials, forged, is_alive, is_dead, notice_link
from tests.support.pages import links_in, path_of, text_of
from tests.support.passwords import NEW_PASSWORD
from tests.support.servers import Page
from tests.support.site import Account, Person, Site

ATTACKERS_PASSWORD = "mallory was here all along"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
MAKERS: dict[str, Callable[[Site, Account], Link]] = {"cancel": cancel_link, "secure": notice_link}


def press(site: Site, link: Link) -> Page:
    """Open a page in a new browser and press its one button."""
    return site.person().submit(str(link))


def break_in(site: Site, account: Account) -> tuple[Person, Link]:
    """Set a password through the owner's email, log in with it, and return the attacker and the notice's link."""
    link = notice_link(site, account, ATTACKERS_PASSWORD)
    attacker = site.person()
    attacker.log_in(account, ATTACKERS_PASSWORD)
    assert attacker.is_signed_in()
    return attacker, link


def events(site: Site, account: Account, kind: str) -> int:
    sql = "SELECT count(*) FROM security_events JOIN users ON users.id = user_id WHERE email = ? AND kind = ?"
    return site.query(sql, account.email, kind)[0][0]


def password_after(make: Callable[[Site, Account], Link]) -> str | None:
    """Return the password that an account has once its link is made; None for the first one."""
    return NEW_PASSWORD if make is notice_link else None


@on_sqlite  # nothing is written on either
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_opening_the_page_changes_nothing(site: Site, make: Callable[[Site, Account], Link], method: str):
    """ASVS 3.5.3: filters follow links before the email is read."""
    account = site.account()
    link, owner = make(site, account), site.person()
    owner.log_in(account, password_after(make))
    before = credentials(site, account)
    site.person().send(method, str(link), {})
    assert credentials(site, account) == before
    assert owner.is_signed_in()
    assert is_alive(site, link)


def test_cancelling_kills_every_link_that_was_emailed(site: Site):
    """ASVS 6.4.3: the attacker's too, and one that is opened already."""
    account, attacker = site.account(), site.person()
    links = [path_of(site.reset_link(account)), path_of(site.reset_link(account))]
    opened = attacker.get(links[0])
    assert press(site, Link.of(links_in(site.emails_to(account.email)[-1])[1])).status == 302
    answers = [page for link in links for page in attack(site, link)]
    answers.append(attacker.fill_in(opened, new_password1=ATTACKERS_PASSWORD, new_password2=ATTACKERS_PASSWORD))
    assert all(is_dead(answer) for answer in answers)


def test_cancelling_leaves_the_password_and_lets_nobody_in(site: Site):
    """ASVS 6.4.3: who has the email alone can't keep the owner out, and is not logged in by it."""
    account = site.account()
    reader = site.person()
    answer = reader.submit(str(cancel_link(site, account)))
    assert answer.headers["Location"] == "/login/"
    assert not reader.is_signed_in()
    assert reader.log_in(account).status == 302


def test_cancelling_works_after_the_attacker_logged_in(site: Site):
    """ASVS 6.4.3, 7.4.1: a login ends the emailed links, and must not end this one."""
    account = site.account()
    link, attacker = cancel_link(site, account), site.person()
    attacker.log_in(account)
    assert press(site, link).status == 302
    assert not attacker.is_signed_in()
    assert events(site, account, "cancelled") == 1


def test_cancelling_works_after_the_attacker_used_the_link(site: Site):
    """ASVS 6.4.3: both links stand in one email."""
    account, attacker = site.account(), site.person()
    link = cancel_link(site, account)
    attacker.choose(links_in(site.emails_to(account.email)[-1])[0], ATTACKERS_PASSWORD)
    attacker.log_in(account, ATTACKERS_PASSWORD)
    assert press(site, link).status == 302
    assert not attacker.is_signed_in()


def test_securing_ends_the_attackers_session_and_password(site: Site):
    """ASVS 6.3.7, 6.5.6, 7.4.1: after a completed reset and a login with the attacker's password."""
    account = site.account()
    attacker, link = break_in(site, account)
    thief = site.person()
    thief.take_cookies_of(attacker)
    assert press(site, link).status == 302
    assert [attacker.is_signed_in(), thief.is_signed_in()] == [False, False]
    assert attacker.log_in(account, ATTACKERS_PASSWORD).status == 200
    assert events(site, account, "secured") == 1


def test_securing_does_not_bring_the_password_before_back(site: Site):
    """ASVS 6.5.6: the attacker may have had that one too."""
    account = site.account()
    _, link = break_in(site, account)
    press(site, link)
    assert site.person().log_in(account).status == 200


def test_securing_kills_the_links_that_the_attacker_got(site: Site):
    """ASVS 6.4.3: one emailed before, kept for later."""
    account = site.account()
    _, link = break_in(site, account)
    kept = path_of(site.reset_link(account))
    assert is_alive(site, kept)
    press(site, link)
    assert all(is_dead(answer) for answer in attack(site, kept))


def use_up_the_hour(site: Site, account: Account) -> None:
    """Have so many resets emailed that the account gets no more for an hour."""
    for _ in range(5):
        site.query("UPDATE users SET mailed_at = NULL WHERE email = ?", account.email)
        before = len(site.emails_to(account.email))
        site.person().request_reset(account.email)
        site.wait_for_email(account.email, before + 1)
    site.wait_until_all_is_sent()


def test_securing_emails_a_link_that_sets_a_password(site: Site):
    """ASVS 6.3.7: to the address of the account, at once, and the attacker can't use its emails up before."""
    account = site.account()
    attacker, link = break_in(site, account)
    use_up_the_hour(site, account)
    before = len(site.emails_to(account.email))
    answer = press(site, link)
    assert answer.headers["Location"] == "/password-reset/done/"
    mailed = site.link_for(account.email, before + 1)
    attacker.log_in(account, ATTACKERS_PASSWORD)  # which would end the link, did the password live on
    assert site.person().choose(mailed, NEW_PASSWORD).status == 302
    assert site.person().log_in(account, NEW_PASSWORD).status == 302


def test_securing_emails_nobody_else(site: Site):
    """ASVS 6.4.3: nothing that the browser sends chooses the address."""
    account = site.account()
    _, link = break_in(site, account)
    page = site.person()
    page.submit(str(link), email="mallory@evil.example", to="mallory@evil.example")
    site.wait_until_all_is_sent()
    assert not site.emails_to("mallory@evil.example")


def test_who_secures_an_account_is_not_logged_in(site: Site):
    """ASVS 6.4.3."""
    reader = site.person()
    _, link = break_in(site, site.account())
    reader.submit(str(link))
    assert not reader.is_signed_in()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_link_is_dead_for_a_deactivated_account(site: Site, make: Callable[[Site, Account], Link]):
    """ASVS 7.4.2: and it does not bring the account back."""
    account = site.account()
    link = make(site, account)
    site.query("UPDATE users SET is_active = false WHERE email = ?", account.email)
    before = credentials(site, account)
    assert all(is_dead(answer) for answer in attack(site, link))
    assert credentials(site, account) == before


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_link_is_dead_once_the_address_is_another(site: Site, make: Callable[[Site, Account], Link]):
    """ASVS 6.4.3: who had the address before has no say any more."""
    account = site.account()
    link = make(site, account)
    address = "new." + account.email
    site.query("UPDATE users SET email = ?, email_key = ? WHERE email = ?", address, address, account.email)
    before = credentials(site, Account(address))
    assert all(is_dead(answer) for answer in attack(site, link))
    assert credentials(site, Account(address)) == before


@on_sqlite  # no database knows a link's age
@pytest.mark.parametrize(("purpose", "lifetime"), [("cancel", 3600), ("notice", 7 * 86400)])
def test_a_page_of_a_dead_link_tells_nothing_but_that_it_is_old(site: Site, purpose: str, lifetime: int):
    """ASVS 6.3.8: the same page, but for the sentence, as for a link that never was one."""
    account = site.account()
    old = attack(site, forged(site, account, purpose, age=lifetime + 2))[:2]
    never = attack(site, forged(site, account, purpose, key="another"))[:2]
    assert all(is_dead(page, EXPIRED) for page in old)
    assert all(is_dead(page) for page in never)
    assert account.email not in old[0].text
    assert [_without_reason(page.text) for page in old] == [_without_reason(page.text) for page in never]


def _without_reason(text: str) -> str:
    return re.sub(r"(?s)<p><strong>This link .*?</p>\s*<p>.*?</p>", "", text)


@on_sqlite  # the words are the same on both
def test_the_notice_says_when_from_where_and_with_what(site: Site):
    """ASVS 6.3.7: the owner can tell it from what they did themselves."""
    account = site.account()
    mallory = site.person("203.0.113.66", **{"User-Agent": FIREFOX})
    link = site.reset_link(account)
    before = len(site.emails_to(account.email))
    mallory.choose(link, ATTACKERS_PASSWORD)
    text = text_of(site.wait_for_email(account.email, before + 1))
    said = re.search(r"on (\d{4}-\d\d-\d\d \d\d:\d\d) UTC, from 203\.0\.113\.66,\s+with Firefox on Windows", text)
    assert said, text
    moment = datetime.strptime(said[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=2)


@on_sqlite  # the words are the same on both
def test_the_email_of_a_reset_says_when_from_where_and_with_what(site: Site):
    """ASVS 6.3.5: before anything has happened."""
    account = site.account()
    site.let_an_hour_pass()
    site.person("203.0.113.77", **{"User-Agent": FIREFOX}).request_reset(account.email)
    text = text_of(site.wait_for_email(account.email, 2))
    assert re.search(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC, from 203\.0\.113\.77,\s+with Firefox on Windows", text)


@on_sqlite  # the words are the same on both
@pytest.mark.parametrize("words", ["Firefox/1 https://evil.example/ click", "<a href=//evil.example>Firefox/1</a>"])
def test_an_attacker_chooses_no_words_of_the_notice(site: Site, words: str):
    """ASVS 6.3.7: the browser's name comes from a fixed list; otherwise the attacker would write the notice."""
    account = site.account()
    link = site.reset_link(account)
    before = len(site.emails_to(account.email))
    site.person(**{"User-Agent": words}).choose(link, ATTACKERS_PASSWORD)
    mail = site.wait_for_email(account.email, before + 1)
    assert "with Firefox." in text_of(mail)
    assert b"evil" not in mail.as_bytes()
