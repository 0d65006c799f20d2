"""The accounts that random requests are sent for, and what each has: cookies, forms, links of every purpose.

It decides who may change what, which the checks of requests rely on. Whatever a request used up is created again.
"""

from secrets import token_hex

from tests.support.clock import until
from tests.support.pages import csrf_token, links_in, path_of
from tests.support.site import Account, Site

NAMES = ("alice", "bob", "dan", "dora", "erin")


class Cast:
    """Six accounts and a visitor on one site.

    - alice is signed in
    - bob has opened a link to reset his password
    - carol was invited and has not chosen a password yet
    - dan has two links that say "This wasn't me"
    - dora is deactivated, and her link with her
    - erin is asked for by nobody
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.accounts = {name: site.account(name, password=new_password()) for name in NAMES}
        self.browsers = {name: site.person() for name in ("alice", "bob", "visitor")}
        self.known = {"site": site.url, "host": site.url.removeprefix("http://"), "long": "A" * 9000}
        self.known |= {name: account.email for name, account in self.accounts.items()}
        self.passwords = {name: account.password for name, account in self.accounts.items()}
        self.known |= {f"{name}.password": password for name, password in self.passwords.items()}
        self.asked_for_bob = 0
        self._invite_carol()
        self._give_dan_his_links()
        self._deactivate_dora()
        self._open_forms_of("visitor")
        self.sign_in_alice()
        self.open_a_link_of_bob()

    @property
    def secrets(self) -> set[str]:
        """What must be in no log."""
        tokens = {text for name, text in self.known.items() if name.endswith((".token", ".cancel", ".notice"))}
        return {*tokens, *self.passwords.values(), self.known["new.password"]}

    def names(self) -> dict[str, str]:
        """Return whose account each address is."""
        return {self.known[name]: name for name in ("carol", *self.accounts)}

    def set_password(self, name: str, password: str) -> None:
        """Note that somebody's password was changed."""
        self.passwords[name] = self.known[f"{name}.password"] = password
        self.known["new.password"] = new_password()

    def sign_in_alice(self) -> None:
        """Log Alice in, after a reset if need be."""
        self.set_password("alice", self.passwords["alice"])
        browser = self.browsers["alice"] = self.site.person()
        browser.log_in(Account(self.known["alice"], self.passwords["alice"]))
        assert browser.is_signed_in(), "Alice's password is not the one that was set last"
        self._open_forms_of("alice")

    def open_a_link_of_bob(self) -> None:
        """Ask for a reset for Bob, and open the link."""
        self.set_password("bob", self.passwords["bob"])
        if "bob.token" in self.known:
            self._know_link("used", self.known["bob.link"])
        until(self._bob_opens_a_link, "a live link of Bob's")
        self.known["bob.signature"] = self.known["bob.token"].partition(".")[2]
        self._open_forms_of("bob")

    def make_waiting_emails_due(self) -> None:
        """Make due what waits for its account's next minute."""
        self.site.let_an_hour_pass()
        self.site.query("UPDATE outbox SET run_after = created_at WHERE failed_at IS NULL AND NOT leased")

    def _bob_opens_a_link(self) -> bool:
        browser = self.browsers["bob"] = self.site.person()
        before = len(self.site.emails_to(self.known["bob"]))
        browser.request_reset(self.known["bob"])
        self.asked_for_bob += 1
        link = until(lambda: self._link_to_reset_by(before), "a link to reset by")
        self._know_link("bob", link)
        return 'name="new_password1"' in browser.get(link).text

    def _link_to_reset_by(self, before: int) -> str | None:
        self.make_waiting_emails_due()
        return next(iter(self._links_of("bob", "/password-reset-confirm/", before)), None)

    def _links_of(self, name: str, page: str, since: int = 0) -> list[str]:
        mails = self.site.emails_to(self.known[name])[since:]
        return [path_of(link) for mail in mails for link in links_in(mail) if page in link]

    def _open_forms_of(self, name: str) -> None:
        browser = self.browsers[name]
        self.known[f"{name}.csrf"] = csrf_token(browser.get("/password-reset/"))
        self.known[f"{name}.cookie"] = browser.cookies()["pwreset_session"]

    def _know_link(self, name: str, path: str, as_: str = "token") -> None:
        _, _, uid, token = path.split("/")
        self.known |= {f"{name}.uid": uid, f"{name}.{as_}": token, f"{name}.link": path}

    def _invite_carol(self) -> None:
        self.known["carol"] = f"carol.{token_hex(4)}@example.com"
        self.site.person().submit("/register/", email=self.known["carol"])
        self._know_link("carol", path_of(self.site.link_for(self.known["carol"])))

    def _give_dan_his_links(self) -> None:
        dan = self.accounts["dan"]
        link = self.site.reset_link(dan)
        self.site.person().choose(link, dan.password)
        self.site.wait_for_email(dan.email, 3)
        self._know_link("dan", self._links_of("dan", "/password-reset-cancel/")[0], "cancel")
        self._know_link("dan", self._links_of("dan", "/account-secure/")[0], "notice")
        self._know_link("used", path_of(link))

    def _deactivate_dora(self) -> None:
        self._know_link("dora", path_of(self.site.reset_link(self.accounts["dora"])))
        self.site.query("UPDATE users SET is_active = false WHERE email = ?", self.known["dora"])


def new_password() -> str:
    """Return a password that is good enough, and that is nobody else's."""
    return f"{token_hex(6)} rivers {token_hex(6)}"
