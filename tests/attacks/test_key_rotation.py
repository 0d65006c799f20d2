"""A new SECRET_KEY interrupts nobody while the old one is a fallback. Without the fallback, all that it signed ends."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe

import pytest

from tests.support.app import migrate
from tests.support.clock import until
from tests.support.databases import SQLite
from tests.support.forms import FORMS, Form, login
from tests.support.links import PAGES, Link, is_alive, is_dead, one_of_each
from tests.support.pages import path_of
from tests.support.servers import run
from tests.support.site import Account, Person, Site, serving
from tests.support.smtp import SMTPServer

OLD, MIDDLE, NEW = (token_urlsafe(48) for _ in range(3))


@dataclass
class Rotation:
    """One site with its first key, after two rotations, and after the fallbacks were dropped.

    Args:
        rotated: signs with the third key and still takes the first two.
        dropped: takes the third alone.
        account: of those who are signed in.
        plain: signed in under the first key, and not remembered.
        remembered: the same, and remembered.
        forms: open since the first key, by what made them.
        links: one of each purpose, emailed under the first key.
    """

    rotated: Site
    dropped: Site
    account: Account
    plain: Person
    remembered: Person
    forms: dict[Callable[[Site], Form], Form]
    links: dict[str, Link]


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotation]:
    """Return what there is after rotations; on SQLite alone, since no database has anything that is signed."""
    folder = tmp_path_factory.mktemp("rotation")
    migrate(folder)
    with SMTPServer() as mail_server:
        ours = folder, SQLite(folder), mail_server
        rotated = Site(*ours, SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=f"{MIDDLE},{OLD}")
        dropped = Site(*ours, SECRET_KEY=NEW, OUTBOX_WORKER="none")
        with serving(Site(*ours, SECRET_KEY=OLD)) as first:
            begun = begin(first)
        dropped.server.launch()
        try:
            with serving(rotated):
                until(dropped.server._answers, "an answer without the fallbacks")
                yield Rotation(rotated, dropped, *begun)
        finally:
            dropped.server.stop_for_certain()


def begin(site: Site) -> tuple[Account, Person, Person, dict[Callable[[Site], Form], Form], dict[str, Link]]:
    """Begin all that is under way when the key changes."""
    account, plain, remembered = site.account(), site.person(), site.person()
    plain.log_in(account)
    remembered.log_in(account, remember="y")
    forms = {make: make(site) for make in FORMS}
    links = one_of_each(site)
    site.wait_until_all_is_sent()
    return account, plain, remembered, forms, links


def moved(person: Person, site: Site) -> Person:
    """Return the same browser at another server."""
    other = site.person()
    other.take_cookies_of(person)
    return other


@pytest.mark.parametrize("make", FORMS)
def test_a_form_that_was_open_is_taken_as_long_as_its_key_is_a_fallback(rotation: Rotation, make: Callable):
    """ASVS 11.2.2, 13.3.4: its CSRF token, its session and, behind a link, the link; without the fallback none is."""
    form = rotation.forms[make]
    with_fallback = replace(form, person=moved(form.person, rotation.rotated))
    without = replace(form, person=moved(form.person, rotation.dropped))
    before = with_fallback.state()
    assert without.send(form.token).status == 400
    assert with_fallback.state() == before
    assert with_fallback.send(form.token).status == 302
    assert with_fallback.state() != before


@pytest.mark.parametrize("purpose", PAGES)
def test_an_emailed_link_lives_as_long_as_its_key_is_a_fallback(rotation: Rotation, purpose: str):
    """ASVS 11.2.2, 13.3.4."""
    link = rotation.links[purpose]
    assert is_alive(rotation.rotated, link)
    assert is_dead(rotation.dropped.person().get(str(link)))


@pytest.mark.parametrize("who", ["plain", "remembered"])
def test_who_is_signed_in_stays_so_as_long_as_their_key_is_a_fallback(rotation: Rotation, who: str):
    """ASVS 11.2.2, 13.3.4."""
    person: Person = getattr(rotation, who)
    assert moved(person, rotation.rotated).is_signed_in()
    assert not moved(person, rotation.dropped).is_signed_in()


def test_a_visit_takes_a_remembered_session_over_to_the_new_key(rotation: Rotation):
    """ASVS 13.3.4: a fallback can be dropped without signing out who came meanwhile."""
    person = moved(rotation.remembered, rotation.rotated)
    person.get("/")
    assert moved(person, rotation.dropped).is_signed_in()


def test_a_session_is_signed_with_the_new_key_alone(rotation: Rotation):
    """ASVS 13.3.4: anybody who has the old key could forge what it signs."""
    person = rotation.rotated.person()
    person.log_in(rotation.account)
    assert moved(person, rotation.dropped).is_signed_in()


def test_a_form_is_signed_with_the_new_key_alone(rotation: Rotation):
    """ASVS 13.3.4."""
    form = login(rotation.rotated)
    assert replace(form, person=moved(form.person, rotation.dropped)).send(form.token).status == 302


def test_a_link_is_signed_with_the_new_key_alone(rotation: Rotation):
    """ASVS 13.3.4."""
    link = path_of(rotation.rotated.reset_link(rotation.rotated.account()))
    assert is_alive(rotation.dropped, link)


KEY = token_urlsafe(48)
WEAK = {
    "CVE-2023-27524, Superset's default": "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET",
    "as a new Django project has it": "django-insecure-" + token_urlsafe(36),
    "31 bytes": KEY[:31],
    "a word over and over": "lantern7" * 6,
    "the alphabet": "abcdefghijklmnopqrstuvwxyz0123456789",
}
REUSED: dict[str, dict[str, object]] = {
    "a fallback": {"SECRET_KEY_FALLBACKS": f"{MIDDLE},{KEY}"},
    "METRICS_TOKEN": {"METRICS_TOKEN": KEY},
    "the mail server's password": {"EMAIL_USER": "accounts@example.com", "EMAIL_PASS": KEY},
    "the database's password": {"DATABASE_URL": f"postgresql://pwreset:{KEY}@127.0.0.1/pwreset"},
}


def start(folder: Path, key: str, **settings: object) -> tuple[bool, str]:
    """Return whether a public site would start with these settings, and what is printed."""
    usual = {"PUBLIC_URL": "https://accounts.example.com", "EMAIL_HOST": "localhost", "EMAIL_FROM": "a@example.com"}
    done = run(folder, "-m", "gunicorn", "--check-config", **usual | {"SECRET_KEY": key} | settings)
    return done.returncode == 0, done.stdout + done.stderr


def problems(printed: str) -> set[str]:
    """Return the settings that a refusal names."""
    return set(re.findall(r"^  - (\w+)", printed, re.MULTILINE))


def test_a_public_site_starts_with_a_key_of_its_own(tmp_path: Path):
    """What the next tests refuse is refused for its key alone."""
    assert start(tmp_path, KEY) == (True, "")


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK)
def test_no_public_site_starts_with_a_key_that_can_be_guessed(tmp_path: Path, key: str):
    """CVE-2023-27524 (Superset: sessions forged with a key from the manual), ASVS 11.2.3, 13.3.1; it isn't printed."""
    starts, printed = start(tmp_path, key)
    assert (starts, problems(printed), key in printed) == (False, {"SECRET_KEY"}, False)


@pytest.mark.parametrize("settings", REUSED.values(), ids=REUSED)
def test_no_public_site_starts_with_a_key_that_is_used_elsewhere(tmp_path: Path, settings: dict[str, object]):
    """ASVS 11.1.1, 13.3.2: the other key opens all accounts, so it isn't printed."""
    starts, printed = start(tmp_path, KEY, **settings)
    assert (starts, problems(printed), KEY in printed) == (False, {"SECRET_KEY"}, False)
