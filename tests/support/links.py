"""Emailed links as attackers treat them: taken apart, forged, and tried in every way.

It decides what an attack on a link's page is and how an invalid link is recognised. It never imports the application:
how a link is signed is written again here, and a test compares the two.
"""

import json
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from secrets import token_hex
from typing import Any, Self

from itsdangerous import TimestampSigner

from tests.support.pages import csrf_token, links_in, path_of
from tests.support.passwords import NEW_PASSWORD
from tests.support.servers import Gunicorn, Page
from tests.support.site import Account, Person, Site

DEAD, EXPIRED = "This link is no longer valid.", "This link has expired."
PAGES = {
    "reset": "password-reset-confirm",
    "invite": "password-reset-confirm",
    "cancel": "password-reset-cancel",
    "notice": "account-secure",
}


@dataclass(frozen=True)
class Link:
    """The three parts of an emailed link's path."""

    page: str
    uid: str
    token: str

    @classmethod
    def of(cls, link: str) -> Self:
        """Take an emailed link apart."""
        return cls(*path_of(link).strip("/").split("/"))

    def __str__(self) -> str:
        return f"/{self.page}/{self.uid}/{self.token}"


def encoded(text: str | bytes) -> str:
    """Return text as links carry it: URL-safe base64 without padding."""
    content = text.encode() if isinstance(text, str) else text
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def credentials(site: Site, account: Account) -> tuple[Any, ...]:
    """Return what decides who gets into an account: id, password, stamp, whether it is active, and the address."""
    columns = "id, password_hash, stamp, is_active, email"
    return site.query(f"SELECT {columns} FROM users WHERE email = ?", account.email)[0]  # noqa: S608 (ours)


def forged(site: Site, account: Account, purpose: str, key: str = Gunicorn.secret_key, age: float = 0) -> Link:
    """Return what somebody could sign who has read the database, and has this key.

    Args:
        site: where the account is.
        account: one that never logged in.
        purpose: a name of `PAGES`.
        key: to sign with; the site's own unless given.
        age: how many seconds ago it claims to be from.
    """
    number, password_hash, stamp, _, email = credentials(site, account)
    state = [password_hash, stamp, None, email] if purpose in {"reset", "invite"} else [email]
    salt = json.dumps(["pwreset", purpose, number, *state])
    signer = TimestampSigner(key, salt=salt, key_derivation="hmac", digest_method=sha256)
    signer.get_timestamp = lambda: int(time.time() - age)  # type: ignore[method-assign]
    uid = encoded(str(number))
    return Link(PAGES[purpose], uid, signer.sign(uid).decode().removeprefix(f"{uid}."))


def new_passwords(person: Person, password: str = NEW_PASSWORD) -> dict[str, str]:
    """Return all that a form for a new password sends, with a CSRF token of this person's browser."""
    token = csrf_token(person.get("/password-reset/"))
    return {"new_password1": password, "new_password2": password, "csrf_token": token}


def attack(site: Site, path: object) -> list[Page]:
    """Open a page and send its form, with a good CSRF token, also where a valid link leads to; return the answers."""
    attacker = site.person()
    fields = new_passwords(attacker)
    inside = f"{str(path).rpartition('/')[0]}/set-password"
    return [attacker.get(str(path)), attacker.post(str(path), fields), attacker.post(inside, fields)]


def is_alive(site: Site, link: object) -> bool:
    """Whether a link shows somebody who was never here its form."""
    page = site.person().get(str(link))
    return page.status == 200 and "csrf_token" in page.text


def is_dead(page: Page, sentence: str = DEAD) -> bool:
    """Whether a page is that of a dead link, with no form at all."""
    return page.status == 200 and sentence in page.text and "<form" not in page.text


def cancel_link(site: Site, account: Account) -> Link:
    """Ask for a reset and return the second link of the email."""
    site.reset_link(account)
    return Link.of(links_in(site.emails_to(account.email)[-1])[1])


def notice_link(site: Site, account: Account, password: str = NEW_PASSWORD) -> Link:
    """Set another password, as the owner or an attacker, and return the link of the notice."""
    reset = site.reset_link(account)
    before = len(site.emails_to(account.email))
    site.person().choose(reset, password)
    return Link.of(site.link_for(account.email, before + 1))


@cache
def one_of_each(site: Site) -> dict[str, Link]:
    """Return a live link of each purpose, of two accounts, for attacks that use none up."""
    newcomer, account = f"newcomer.{token_hex(4)}@example.com", site.account()
    site.person().submit("/register/", email=newcomer)
    notice, reset = notice_link(site, account), site.reset_link(account)
    cancel = links_in(site.emails_to(account.email)[-1])[1]
    invite = site.link_for(newcomer)
    return {"reset": Link.of(reset), "invite": Link.of(invite), "cancel": Link.of(cancel), "notice": notice}
