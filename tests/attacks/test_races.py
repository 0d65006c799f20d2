"""Of requests sent at the same moment, each link, password and cooldown slot is used once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from secrets import token_hex
from threading import Barrier

import pytest

from tests.support.clock import until
from tests.support.links import is_dead, new_passwords, notice_link
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.servers import Page
from tests.support.site import Account, MakeSite, Person, Site

FREE_FAILURES = 5
OTHER_PASSWORD = "eleven copper kettles whistle"


@pytest.fixture
def site(engine: str, sites: MakeSite) -> Site:
    """Return a site of two processes, each with its threads."""
    return sites(engine, WEB_CONCURRENCY=2)


def all_at_once(acts: Iterable[Callable[[], Page]]) -> list[Page]:
    """Do everything at the same moment, and return the answers in order."""
    acts = list(acts)
    start = Barrier(len(acts))

    def act_in_time(act: Callable[[], Page]) -> Page:
        start.wait()
        return act()

    with ThreadPoolExecutor(len(acts)) as crowd:
        return list(crowd.map(act_in_time, acts))


def choosing(person: Person, form: Page, password: str) -> Callable[[], Page]:
    """Return the act of sending a form that is open."""
    return lambda: person.fill_in(form, new_password1=password, new_password2=password)


def logging_in(person: Person, account: Account, password: str | None = None) -> Callable[[], Page]:
    form = person.get("/login/")
    return lambda: person.fill_in(form, email=account.email, password=password or account.password)


def changing(person: Person, password: str) -> Callable[[], Page]:
    fields = new_passwords(person, password) | {"old_password": PASSWORD}
    return lambda: person.post("/password-change/", fields)


def happened(site: Site, account: Account, kind: str) -> int:
    sql = "SELECT count(*) FROM security_events JOIN users ON users.id = user_id WHERE email = ? AND kind = ?"
    return site.query(sql, account.email, kind)[0][0]


def working(site: Site, account: Account, passwords: list[str]) -> list[bool]:
    """Return which of the passwords log in."""
    return [site.person().log_in(account, password).status == 302 for password in passwords]


@pytest.mark.parametrize("sessions", ["one session", "many sessions"])
def test_of_many_posts_with_one_link_one_wins(site: Site, sessions: str):
    """ASVS 6.5.1, 15.4.2: and there is one notice and one event for it."""
    account = site.account()
    link = path_of(site.reset_link(account))
    before = len(site.emails_to(account.email)), happened(site, account, "completed")
    passwords = [f"number {number} of six good passwords" for number in range(6)]
    first = site.person()
    first_form = first.get(link)
    crowd = [site.person() for _ in passwords]
    for person in crowd if sessions == "one session" else []:
        person.take_cookies_of(first)
    forms = [first_form if sessions == "one session" else person.get(link) for person in crowd]
    answers = all_at_once(map(choosing, crowd, forms, passwords))
    won = [answer.status == 302 for answer in answers]
    assert won.count(True) == 1
    assert all(is_dead(answer) for answer in answers if answer.status != 302)
    assert working(site, account, passwords) == won
    site.wait_until_all_is_sent()
    after = len(site.emails_to(account.email)), happened(site, account, "completed")
    assert after == (before[0] + 1, before[1] + 1)


def test_of_two_links_of_one_account_one_wins(site: Site):
    """ASVS 6.5.1, 15.4.2: the owner's and the attacker's, say."""
    account = site.account()
    links = [path_of(site.reset_link(account)) for _ in range(2)]
    passwords, crowd = [NEW_PASSWORD, OTHER_PASSWORD], [site.person(), site.person()]
    forms = [person.get(link) for person, link in zip(crowd, links, strict=True)]
    answers = all_at_once(map(choosing, crowd, forms, passwords))
    won = [answer.status == 302 for answer in answers]
    assert won.count(True) == 1
    assert working(site, account, passwords) == won


@pytest.mark.parametrize("attempt", range(3))
def test_a_login_during_a_reset_does_not_outlive_it(site: Site, attempt: int):
    """ASVS 7.4.3, 15.4.2: the old password, checked before and recorded after, opens nothing and does not come back."""
    account, owner = site.account(), site.person()
    form = owner.get(path_of(site.reset_link(account)))
    attackers = [site.person() for _ in range(4)]
    acts = [choosing(owner, form, NEW_PASSWORD), *(logging_in(attacker, account) for attacker in attackers)]
    was_reset = all_at_once(acts)[0].status == 302
    # A login that was first ends the link, as always; then nothing was reset, and the password is the old one.
    assert working(site, account, [PASSWORD, NEW_PASSWORD]) == [not was_reset, was_reset]
    assert not was_reset or not any(attacker.is_signed_in() for attacker in attackers)


def test_of_a_change_and_a_reset_one_wins(site: Site):
    """ASVS 15.4.2: the second request gets an error and changes nothing."""
    account, attacker, owner = site.account(), site.person(), site.person()
    attacker.log_in(account)
    form = owner.get(path_of(site.reset_link(account)))
    acts = [changing(attacker, OTHER_PASSWORD), choosing(owner, form, NEW_PASSWORD)]
    changed, was_reset = all_at_once(acts)
    won = [changed.status == 302 and "done" in changed.headers["Location"], was_reset.status == 302]
    assert won.count(True) == 1
    assert working(site, account, [OTHER_PASSWORD, NEW_PASSWORD]) == won
    assert attacker.is_signed_in() == won[0]


def test_of_two_changes_from_one_session_one_wins(site: Site):
    """ASVS 15.4.2."""
    account, owner, thief = site.account(), site.person(), site.person()
    owner.log_in(account)
    thief.take_cookies_of(owner)
    passwords = [NEW_PASSWORD, OTHER_PASSWORD]
    answers = all_at_once(map(changing, [owner, thief], passwords))
    won = [answer.status == 302 and "done" in answer.headers["Location"] for answer in answers]
    assert won.count(True) == 1
    assert working(site, account, passwords) == won


@pytest.mark.parametrize("attempt", range(3))
def test_nobody_is_in_after_an_account_was_secured(site: Site, attempt: int):
    """ASVS 15.4.2: neither by a login nor by an emailed link at the same moment."""
    account, owner, intruder, attacker = site.account(), site.person(), site.person(), site.person()
    page = owner.get(str(notice_link(site, account, NEW_PASSWORD)))
    form = attacker.get(path_of(site.reset_link(account)))
    acts = [logging_in(intruder, account, NEW_PASSWORD), choosing(attacker, form, OTHER_PASSWORD)]
    assert all_at_once([lambda: owner.fill_in(page), *acts])[0].status == 302
    assert not intruder.is_signed_in()
    assert working(site, account, [PASSWORD, NEW_PASSWORD, OTHER_PASSWORD]) == [False, False, False]


def test_logging_out_twice_at_once_is_logging_out(site: Site):
    """ASVS 16.5.3: a double click without JavaScript, or two tabs."""
    owner, account = site.person(), site.account()
    owner.log_in(account)
    form = owner.get("/account/")
    crowd = [site.person(owner.address) for _ in range(6)]
    for person in crowd:
        person.take_cookies_of(owner)
    token = csrf_token(form)
    answers = all_at_once(partial(person.post, "/logout/", {"csrf_token": token}) for person in crowd)
    assert {answer.status for answer in answers} == {302}
    assert not owner.is_signed_in()


@pytest.mark.parametrize("known", [True, False], ids=["an account", "no account"])
def test_guessing_in_parallel_gets_no_more_tries(site: Site, known: bool):
    """ASVS 6.3.1, 2.4.1, 15.4.2: of thirty guesses at once, as many are looked at as one after the other."""
    account = site.account() if known else Account("nobody.at.all@example.com")
    address = site.person().address
    crowd = [site.person(address) for _ in range(30)]
    spellings = [account.email, account.email.upper(), account.email.title()]
    guesses = [
        logging_in(person, Account(spellings[number % 3]), f"guess number {number} of thirty")
        for number, person in enumerate(crowd)
    ]
    answers = [answer.status for answer in all_at_once(guesses)]
    assert answers.count(200) == FREE_FAILURES + 1
    assert answers.count(200) + answers.count(429) == 30
    looked_at = site.query(
        "SELECT count(*) FROM security_events WHERE kind = 'login_failed' AND client_address = ?", address
    )
    assert looked_at == [(answers.count(200),)]


def test_the_right_password_among_parallel_guesses_is_not_looked_at_either(site: Site):
    """ASVS 6.3.1: once a network has to wait, no password is right."""
    account, address = site.account(), site.person().address
    for _ in range(FREE_FAILURES + 1):
        site.person(address).log_in(account, "a wrong password, once more")
    acts = [logging_in(site.person(address), account) for _ in range(8)]
    assert [answer.status for answer in all_at_once(acts)] == [429] * 8


def asking(site: Site, page: str, email: str, times: int) -> list[Callable[[], Page]]:
    """Return the acts of as many people who ask for email to one address."""
    crowd = [site.person() for _ in range(times)]
    forms = [person.get(page) for person in crowd]
    return [partial(person.fill_in, form, email=email) for person, form in zip(crowd, forms, strict=True)]


def waiting(site: Site, email: str) -> list[float]:
    """Return for how many seconds after it was asked for each email to an address waits."""
    rows = site.query("SELECT run_after, created_at FROM outbox WHERE address = ? AND NOT leased", email)
    moments = [[datetime.fromisoformat(str(moment)) for moment in row] for row in rows]
    return [(run_after - created_at).total_seconds() for run_after, created_at in moments]


def emails_at_once(site: Site, email: str) -> int:
    """Wait until every request is emailed, merged or deferred; return how many emails were sent."""
    leased = "SELECT count(*) FROM outbox WHERE address = ? AND leased"
    # Of each process, one that found the others' under way may wait.
    until(
        lambda: site.query(leased, email) == [(0,)] and 0 < len(waits := waiting(site, email)) <= 2 and min(waits) > 30,
        f"an end of what is due to {email}",
    )
    return len(site.emails_to(email))


@pytest.fixture
def forgetting(site: Site) -> Iterator[None]:
    """Leave nothing behind that waits for longer than a test."""
    yield
    site.query("DELETE FROM outbox")


def test_parallel_requests_for_one_address_bring_one_email(site: Site, forgetting: None):
    """ASVS 2.4.1, 15.4.2: a flood of requests is no flood of mail."""
    account = site.account()
    assert len(site.emails_to(account.email)) == 1
    acts = asking(site, "/password-reset/", account.email, 12)
    assert {answer.status for answer in all_at_once(acts)} == {302}
    assert emails_at_once(site, account.email) == 2


def test_parallel_registrations_of_one_address_make_one_account_and_one_email(site: Site, forgetting: None):
    """ASVS 2.4.1, 15.4.2."""
    email = f"many.times.{token_hex(4)}@example.com"
    all_at_once(asking(site, "/register/", email, 8))
    assert emails_at_once(site, email) == 1
    assert site.query("SELECT count(*) FROM users WHERE email = ?", email) == [(1,)]
