"""Somebody who steals the database, a backup or a log finds no password, link, session or key in it.

One account goes through every step on a site that records every request. Then the tests search all that was stored.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from secrets import token_hex
from typing import Any

import pytest
from itsdangerous import URLSafeTimedSerializer

from tests.support.clock import until
from tests.support.pages import csrf_token, links_in, path_of, text_of
from tests.support.servers import Gunicorn
from tests.support.site import Account, MakeSite, Person, Site
from tests.support.site_requests import session_of

LOUD = {"GUNICORN_CMD_ARGS": "--access-logfile - --log-level debug", "LOG_FORMAT": "text"}
KINDS = ("password", "token", "session", "CSRF token", "key")


@dataclass
class Life:
    """An account, and every secret there ever was about it, by kind."""

    site: Site
    email: str
    secrets: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})

    def password(self) -> str:
        """Return a new one."""
        chosen = f"{token_hex(4)} green {token_hex(4)} lanterns"
        self.secrets["password"].add(chosen)
        return chosen

    def links(self, number: int) -> list[str]:
        """Wait for an email and return its links but for the site's own address at its end."""
        found = [link for link in links_in(self.site.wait_for_email(self.email, number)) if link.count("/") > 3]
        self.secrets["token"] |= {link.rpartition("/")[2] for link in found}
        return found

    def request_resets(self, number: int) -> list[str]:
        """Ask for a reset and return the links of the email."""
        self.site.let_an_hour_pass()
        self.site.person().request_reset(self.email)
        return self.links(number)

    def remember(self, person: Person) -> Person:
        """Note what a browser holds now."""
        self.secrets["session"] |= set(person.cookies().values())
        self.secrets["CSRF token"].add(csrf_token(person.get("/password-reset/")))
        return person


@cache
def life_on(site: Site) -> Life:
    """Let an account live through everything that the site offers."""
    life = Life(site, f"carol.{token_hex(4)}@example.com")
    life.secrets["key"].add(Gunicorn.secret_key)
    first, second, third, mistyped = (life.password() for _ in range(4))
    site.person().submit("/register/", email=life.email)
    site.person().choose(life.links(1)[0], first)
    owner = life.remember(site.person())
    owner.log_in(Account(life.email), mistyped)
    owner.log_in(Account(life.email, first), remember="y")
    life.remember(owner).submit("/password-change/", old_password=first, new_password1=second, new_password2=second)
    life.remember(owner)
    notice, (reset, _) = life.links(2)[0], life.request_resets(3)
    visitor = site.person()
    visitor.get(path_of(reset))
    life.remember(visitor).choose(reset, mistyped[:4])
    visitor.choose(reset, third)
    life.links(4)
    owner.log_in(Account(life.email, third))
    life.remember(owner).submit("/logout/")
    site.person().submit(path_of(life.request_resets(5)[1]))
    site.person().submit(path_of(notice))
    life.links(6)
    return life


@pytest.fixture
def life(engine: str, sites: MakeSite) -> Life:
    """Return a life that was lived."""
    return life_on(sites(engine, **LOUD))


def kept(site: Site) -> dict[str, bytes]:
    """Return everything that the site keeps or has printed, by where."""
    files = {str(path): path.read_bytes() for path in site.folder.rglob("*") if path.is_file()}
    return {**site.database.contents(), **files, "log": site.server.log().encode()}


def spellings(secret: str) -> Iterator[bytes]:
    """Yield a secret, the signature in it, and each as it would stand in base64."""
    for text in {secret, secret.rpartition(".")[2]}:
        yield text.encode()
        yield from (b64encode(b" " * shift + text.encode())[4:-4] for shift in range(3))


def test_the_account_went_through_every_step(life: Life) -> None:
    """What is searched for was there, and what is searched holds what it should."""
    assert {kind: len(life.secrets[kind]) >= 4 for kind in KINDS[:4]} == dict.fromkeys(KINDS[:4], True)
    places = kept(life.site)
    assert any(life.email.encode() in content for content in places.values())
    assert b"/password-reset-confirm/[redacted]" in places["log"]
    kinds = {kind for (kind,) in life.site.query("SELECT DISTINCT kind FROM security_events")}
    assert {"completed", "changed", "logged_in", "login_failed", "cancelled", "secured"} <= kinds


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_kept_anywhere(life: Life, kind: str) -> None:
    """ASVS 14.2.4, 16.2.5, 11.4.2, 6.4.1: not in a row, nor in the pages of a file where a row was; not in a log."""
    places = kept(life.site)
    for secret in life.secrets[kind]:
        for spelled in spellings(secret):
            assert [place for place, content in places.items() if spelled in content] == []


def test_no_address_is_logged(life: Life) -> None:
    """ASVS 16.2.5, 14.2.4."""
    assert "carol." not in life.site.server.log()


def test_a_password_is_stored_as_a_hash_that_costs(life: Life) -> None:
    """ASVS 11.4.2, as OWASP's Password Storage Cheat Sheet asks: argon2id, 19 MiB, two passes, a salt of its own."""
    password = life.password()
    accounts = [life.site.account(password=password) for _ in range(2)]
    hashes = [hash_of(life.site, account.email) for account in accounts]
    assert hashes[0] != hashes[1]
    for stored in hashes:
        found = re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=\d+\$([\w+/]{22,})\$[\w+/]{43}$", stored)
        assert found and int(found[1]) >= 19 * 1024 and int(found[2]) >= 2


def hash_of(site: Site, email: str) -> str:
    ((stored,),) = site.query("SELECT password_hash FROM users WHERE email = ?", email)
    return str(stored)


def test_an_email_that_waits_holds_no_link(life: Life) -> None:
    """ASVS 14.2.4, 11.7.2: the link is made when the email is handed over, and kept nowhere until then."""
    site, account, told = life.site, life.site.account(), list[str]()
    site.let_an_hour_pass()
    site.mail_server.data_reply = lambda: told.append("451 4.3.0 Later") or told[-1]
    try:
        site.person().request_reset(account.email)
        until(lambda: told and site.query("SELECT failure FROM outbox WHERE failure IS NOT NULL"), "a mail that waits")
        places = kept(site)
    finally:
        site.mail_server.data_reply = None
        site.query("DELETE FROM outbox")
    assert any(account.email.encode() in content for content in places.values())
    assert not any(re.search(rb"password-reset-c\w+/\w+/\w{6}", content) for content in places.values())


def test_what_is_typed_at_login_is_not_kept(life: Life) -> None:
    """ASVS 14.2.4, 16.2.5: some type a password where the address should be."""
    typed = f"{token_hex(8)}@example.com"
    assert life.site.person().submit("/login/", email=typed, password="wrong").status == 200
    assert [place for place, content in kept(life.site).items() if typed[:16].encode() in content.lower()] == []


def test_a_stolen_row_opens_no_session(life: Life) -> None:
    """ASVS 11.5.1, 14.3.3: what a session names is in the database; what signs it is not."""
    site, account = life.site, life.site.account()
    owner = site.person()
    owner.log_in(account)
    ((number, stamp, stored),) = site.query("SELECT id, stamp, password_hash FROM users WHERE email = ?", account.email)
    assert session_of(owner)["_user_id"] == f"{number}.{stamp}"
    assert len(stamp) >= 22
    keys = (Gunicorn.secret_key, "", stamp, stored, "secret", "dev")
    thieves = [site.person(Cookie=f"pwreset_session={signed(session_of(owner), key)}") for key in keys]
    assert [thief.is_signed_in() for thief in thieves] == [True, False, False, False, False, False]


def signed(session: dict[str, Any], key: str) -> str:
    """Return a session's cookie as Flask signs it."""
    options = {"key_derivation": "hmac", "digest_method": sha1}
    return str(URLSafeTimedSerializer(key, salt="cookie-session", signer_kwargs=options).dumps(session))


def test_a_session_keeps_nothing_of_a_link_that_was_used(life: Life) -> None:
    """ASVS 14.3.3, 14.2.1: the token is in the cookie of who opened the link, and on no page, until it is used."""
    account, visitor = life.site.account(), life.site.person()
    link = life.site.reset_link(account)
    token = link.rpartition("/")[2]
    page = visitor.get(path_of(link))
    assert token in str(session_of(visitor))
    assert token not in page.text + page.path + str(page.headers)
    assert visitor.choose(link).status == 302
    assert visitor.cookies() == {}


def test_no_email_holds_a_password(life: Life) -> None:
    """ASVS 6.4.1, 6.4.6: nor does any say how to log in without a link."""
    for mail in life.site.emails_to(life.email):
        assert not any(password in mail.as_string() + text_of(mail) for password in life.secrets["password"])
