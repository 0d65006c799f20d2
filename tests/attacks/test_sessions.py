"""A session belongs to one browser and one login, and ends everywhere when the account's credentials change."""

import hmac
import time
from collections.abc import Callable
from functools import cache
from hashlib import sha1, sha512
from http.cookies import Morsel, SimpleCookie

import pytest
from itsdangerous import URLSafeTimedSerializer

from tests.support.databases import on_postgresql, on_sqlite
from tests.support.links import credentials, new_passwords
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.servers import Gunicorn
from tests.support.site import Account, MakeSite, Person, Site

COOKIE = "pwreset_session"


@cache
def resident(site: Site) -> Account:
    """Return an account whose sessions nobody ends."""
    return site.account("resident")


def signed_in(site: Site, account: Account, **fields: str) -> Person:
    """Return somebody who has logged in."""
    person = site.person()
    person.log_in(account, **fields)
    assert person.is_signed_in()
    return person


def log_in_over(person: Person, account: Account) -> None:
    """Log in where somebody is logged in already; the page shows no form then."""
    token = csrf_token(person.get("/password-reset/"))
    fields = {"email": account.email, "password": account.password, "csrf_token": token}
    assert person.post("/login/", fields).status == 302
    assert account.email in person.get("/").text


def copy_of(person: Person) -> Person:
    """Return a thief with this person's cookies as they are now."""
    thief = person.site.person()
    thief.take_cookies_of(person)
    return thief


def with_cookie(site: Site, value: str, name: str = COOKIE) -> Person:
    """Return somebody who sends this cookie."""
    return site.person(Cookie=f"{name}={value}")


def reset(site: Site, account: Account, _: Person) -> None:
    assert site.person().choose(site.reset_link(account)).status == 302


def change(_: Site, __: Account, owner: Person) -> None:
    assert change_password(owner).status == 302


def change_password(owner: Person):
    fields = new_passwords(owner) | {"old_password": PASSWORD}
    return owner.post("/password-change/", fields)


def sign_out_everywhere(_: Site, __: Account, owner: Person) -> None:
    token = csrf_token(owner.get("/account/"))
    assert owner.post("/account/sign-out-everywhere/", {"csrf_token": token}).status == 302


def set_by_an_administrator(site: Site, account: Account, _: Person) -> None:
    command = ("users", "set-password", account.email, "--password-stdin")
    assert site.flask(*command, stdin=NEW_PASSWORD).returncode == 0


def deactivate_and_activate(site: Site, account: Account, _: Person) -> None:
    assert site.flask("users", "deactivate", account.email).returncode == 0
    assert site.flask("users", "activate", account.email).returncode == 0


def switch_off(site: Site, account: Account, _: Person) -> None:
    site.query("UPDATE users SET is_active = false WHERE email = ?", account.email)


ENDS = [reset, change, sign_out_everywhere, set_by_an_administrator, deactivate_and_activate, switch_off]


@pytest.mark.parametrize("end", ENDS)
def test_every_session_ends_with(site: Site, end: Callable[[Site, Account, Person], None]):
    """ASVS 7.4.1, 7.4.2, 7.4.3, 7.4.5: remembered and copied ones too, and none comes back with the account."""
    account = site.account()
    owner = signed_in(site, account)
    others = [signed_in(site, account), signed_in(site, account, remember="y")]
    copies = [copy_of(person) for person in (owner, *others)]
    end(site, account, owner)
    assert [person.is_signed_in() for person in (*others, *copies)] == [False] * 5


def test_the_session_that_changes_the_password_lives_on_under_a_new_cookie(site: Site):
    """ASVS 7.2.4, 7.4.3."""
    owner = signed_in(site, site.account(), remember="y")
    thief = copy_of(owner)
    change_password(owner)
    assert owner.is_signed_in()
    assert not thief.is_signed_in()


def test_a_copied_cookie_is_dead_after_the_logout(site: Site):
    """ASVS 7.4.1: a signed cookie would be good for days, so the site remembers that its session ended."""
    account = site.account()
    owner = signed_in(site, account, remember="y")
    elsewhere, thief = signed_in(site, account), copy_of(owner)
    owner.submit("/logout/")
    thief.get("/login/")  # nor does a visit with it bring a living one
    assert not thief.is_signed_in()
    assert elsewhere.is_signed_in()


@pytest.mark.parametrize("who", ["the same", "another"])
def test_a_login_ends_the_session_that_was_there_before(site: Site, who: str):
    """ASVS 7.2.4: a new session at each login, and the present one is terminated, copies too."""
    account = site.account()
    person = signed_in(site, account)
    thief = copy_of(person)
    log_in_over(person, account if who == "the same" else site.account("bob"))
    assert not thief.is_signed_in()


def test_a_cookie_planted_before_the_login_is_not_signed_in_after_it(site: Site):
    """ASVS 7.2.4 (session fixation): the attacker knows the cookie that the victim logs in with."""
    attacker, victim = site.person(), site.person()
    attacker.get("/login/")
    victim.take_cookies_of(attacker)
    victim.log_in(site.account())
    assert victim.is_signed_in()
    assert not attacker.is_signed_in()
    assert victim.cookies()[COOKIE] != attacker.cookies()[COOKIE]


@on_sqlite  # no database knows of cookies
def test_what_an_attacker_left_in_a_planted_session_is_gone_after_the_login(site: Site):
    """ASVS 7.2.4 (session fixation): here a reset link of the attacker's own account, opened half-way."""
    attacker, victim = site.person(), site.person()
    form = attacker.get(path_of(site.reset_link(site.account("mallory"))))
    victim.take_cookies_of(attacker)
    assert "new_password1" in victim.get(form.path).text
    victim.log_in(site.account())
    assert "new_password1" not in victim.get(form.path).text


def test_logging_in_as_another_leaves_nothing_of_the_first(site: Site):
    """ASVS 7.2.4: neither who it was, nor what they had asked for."""
    first, second, person = site.account("first"), site.account("second"), site.person()
    person.log_in(first)
    person.request_reset(first.email)
    assert first.email in person.get("/password-reset/done/").text
    log_in_over(person, second)
    pages = ["/", "/account/", "/password-change/", "/password-reset/done/", "/register/done/", "/logout/"]
    assert not any(first.email in person.get(path).text for path in pages)


def test_the_form_of_the_first_is_rejected_once_another_is_logged_in(site: Site):
    """ASVS 3.5.1, 7.2.4: a tab that was left open does not act for the next person."""
    first, second, person = site.account("first"), site.account("second"), site.person()
    person.log_in(first)
    tab = person.get("/password-change/")
    log_in_over(person, second)
    before = credentials(site, second)
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert person.fill_in(tab, **fields).status == 400
    assert credentials(site, second) == before


def test_opening_a_link_of_another_signs_nobody_out(site: Site):
    """ASVS 3.5.3: or any valid link, behind an image, would be a forced logout."""
    person = signed_in(site, site.account("here"))
    person.get(path_of(site.reset_link(site.account("other"))))
    assert person.is_signed_in()


def test_setting_the_password_of_another_signs_out_who_was_here(site: Site):
    """ASVS 7.2.4, 7.4.1: in this browser and in copies of its cookie, and nowhere else."""
    here, other = site.account("here"), site.account("other")
    person, elsewhere = signed_in(site, here), signed_in(site, here)
    thief = copy_of(person)
    assert person.choose(site.reset_link(other)).status == 302
    assert [person.is_signed_in(), thief.is_signed_in(), elsewhere.is_signed_in()] == [False, False, True]
    assert person.log_in(other, NEW_PASSWORD).status == 302


def test_nobody_is_logged_in_by_a_link(site: Site):
    """ASVS 6.4.3: who reads somebody's email has to leave a trace, a password that its owner does not know."""
    newcomer, person = site.account(), site.person()
    answer = person.choose(site.reset_link(newcomer))
    assert answer.headers["Location"].endswith("/password-reset-complete/")
    assert person.send("GET", "/account/", {}).headers["Location"].startswith("/login/")


def flipped(value: str, place: int) -> str:
    """Return the text with another character in one place."""
    return value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]


TAMPERED: dict[str, Callable[[str], str]] = {
    "another payload": lambda value: flipped(value, 3),
    "another time": lambda value: flipped(value, value.rindex(".") - 2),
    "another signature": lambda value: flipped(value, len(value) - 10),
    "no signature": lambda value: value.rpartition(".")[0],
    "an empty signature": lambda value: value.rpartition(".")[0] + ".",
    "payload alone": lambda value: value.lstrip(".").partition(".")[0],
    "compressed or not": lambda value: value[1:] if value.startswith(".") else "." + value,
    "twice": lambda value: f"{value}.{value}",
}


@on_sqlite  # no database judges a signature
@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_a_cookie_that_was_changed_signs_nobody_in(site: Site, tamper: Callable[[str], str]):
    """ASVS 7.2.1, 9.1.1."""
    genuine = signed_in(site, resident(site)).cookies()[COOKIE]
    assert with_cookie(site, genuine).is_signed_in()
    assert with_cookie(site, tamper(genuine)).send("GET", "/account/", {}).status == 302


KNOWN_KEYS = ["", "secret", "dev", "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET", "thisISaSECRET_1234"]
HOW_FLASK_SIGNS = {"key_derivation": "hmac", "digest_method": sha1}
LIFETIME, MAXIMUM = 14 * 86400, 30 * 86400


def serializer(key: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt="cookie-session", signer_kwargs=HOW_FLASK_SIGNS)


def forged(site: Site, key: str = Gunicorn.secret_key, **changes: object) -> Person:
    """Return somebody with the session of a genuine login, changed, and signed with this key now."""
    genuine = signed_in(site, resident(site)).cookies()[COOKIE]
    content = {**serializer(Gunicorn.secret_key).loads(genuine), **changes}
    return with_cookie(site, str(serializer(key).dumps(content)))


@on_sqlite  # no database judges a signature
def test_with_the_key_a_session_can_be_forged(site: Site):
    """What the next tests forge would be signed in, but for the one thing that each of them says."""
    assert forged(site).is_signed_in()


@on_sqlite  # no database judges a signature
@pytest.mark.parametrize("key", KNOWN_KEYS)
def test_a_session_signed_with_a_well_known_key_signs_nobody_in(site: Site, key: str):
    """CVE-2023-27524 (Superset: the sessions of its default keys were forged); even with the stamp at hand."""
    assert not forged(site, key).is_signed_in()


@on_postgresql  # the stricter one about what is a number
@pytest.mark.parametrize("session_id", ["{number}", "{number}.", "{number}.x", ".{stamp}", "{number}.{stamp}x", "²."])
def test_a_session_without_the_accounts_security_stamp_signs_nobody_in(site: Site, session_id: str):
    """ASVS 7.4.1: whatever else a session from before a reset, or of another version, may hold."""
    number, _, stamp, *_ = credentials(site, resident(site))
    person = forged(site, _user_id=session_id.format(number=number, stamp=stamp))
    assert person.send("GET", "/account/", {}).status == 302


@on_sqlite  # no database knows when a session was last alive
@pytest.mark.parametrize(("since", "longest"), [("_seen_at", LIFETIME), ("_began_at", MAXIMUM)])
@pytest.mark.parametrize(("more", "lives"), [(-60, True), (60, False)])
def test_a_session_ends_after_its_time_however_fresh_its_signature(
    site: Site, since: str, longest: int, more: int, lives: bool
):
    """ASVS 7.3.1, 7.3.2: Flask signs a session again in every response."""
    assert forged(site, **{since: int(time.time()) - longest - more}).is_signed_in() == lives


@on_sqlite  # no database knows of cookies
@pytest.mark.parametrize("key", ["", "secret", Gunicorn.secret_key], ids=["no key", "guessed", "right"])
def test_the_remember_cookie_of_flask_login_signs_nobody_in(site: Site, key: str):
    """ASVS 6.3.4, CVE-2018-15727 (Grafana: a second way in, by a remember cookie that could be made up)."""
    number, _, stamp, *_ = credentials(site, resident(site))
    payload = f"{number}.{stamp}"
    signature = hmac.new(key.encode(), payload.encode(), sha512).hexdigest()
    assert not with_cookie(site, f"{payload}|{signature}", "remember_token").is_signed_in()


def cookie_in(headers) -> Morsel[str]:
    """Return the one cookie that an answer sets."""
    (line,) = headers.get_all("Set-Cookie")
    ((_, cookie),) = SimpleCookie(line).items()
    return cookie


@on_sqlite  # no database knows of cookies
@pytest.mark.parametrize("remember", ["", "y"], ids=["for now", "remembered"])
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site, remember: str):
    """ASVS 3.3.2, 3.3.4, 3.3.5: one cookie, HttpOnly, SameSite=Lax, of this host alone, and small."""
    fields = {"remember": remember} if remember else {}
    cookie = cookie_in(site.person().log_in(resident(site), **fields).headers)
    assert (cookie.key, cookie["httponly"], cookie["samesite"]) == (COOKIE, True, "Lax")
    assert (cookie["domain"], cookie["path"], bool(cookie["expires"])) == ("", "/", bool(remember))
    assert len(cookie.OutputString()) < 1000


@on_sqlite  # no database knows of cookies
def test_a_cookie_of_a_site_on_https_is_secure_and_bound_to_its_host(engine: str, sites: MakeSite):
    """ASVS 3.3.1, 3.3.3."""
    cookie = cookie_in(over_https(sites(engine, PUBLIC_URL="https://accounts.example.test"), "/login/"))
    assert cookie.key == "__Host-pwreset_session"
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")
    assert (cookie["domain"], cookie["path"]) == ("", "/")


@on_sqlite  # no database knows of headers
@pytest.mark.parametrize("path", ["/", "/login/", "/account/", "/nowhere/", "/static/pwreset.css"])
def test_a_site_on_https_asks_for_https_ever_after(engine: str, sites: MakeSite, path: str):
    """ASVS 3.4.1: for a year, with every answer."""
    headers = over_https(sites(engine, PUBLIC_URL="https://accounts.example.test"), path)
    assert "max-age=31536000" in headers["Strict-Transport-Security"]


def over_https(site: Site, path: str):
    """Return the headers of a page as a proxy that ends TLS gets them."""
    return site.person(**{"Host": "accounts.example.test", "X-Forwarded-Proto": "https"}).send("GET", path, {}).headers


@on_sqlite  # no database knows of headers
@pytest.mark.parametrize("path", ["/", "/account/", "/login/", "/nowhere/", "/static/pwreset.css", "/healthz"])
def test_no_cache_gives_a_session_to_somebody_else(site: Site, path: str):
    """CVE-2023-30861 (Flask: a refreshed session in an answer that proxies may keep)."""
    headers = signed_in(site, resident(site), remember="y").send("GET", path, {}).headers
    kept = "no-store" not in headers.get("Cache-Control", "")
    assert not (headers.get_all("Set-Cookie") and kept) or "Cookie" in headers.get("Vary", "")
