"""A real Chromium, and what a person does in it, click by click."""

from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.site import Site

CHROMIUM = Path("/usr/bin/chromium")
LAUNCH = {
    "executable_path": str(CHROMIUM),
    "args": [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ],
}


def register(page: Page, address: str) -> None:
    """Ask for an account, as far as the page that says where to look."""
    page.goto("/register/")
    page.get_by_label("Email address").fill(address)
    page.get_by_role("main").get_by_role("button", name="Register").click()
    page.wait_for_url("**/register/done/")


def request_reset(page: Page, address: str) -> None:
    """Ask for the link, as far as the page that says where to look."""
    page.goto("/password-reset/")
    page.get_by_label("Email address").fill(address)
    page.get_by_role("button", name="Send the link").click()
    page.wait_for_url("**/password-reset/done/")


def emails_to(page: Page, address: str, subject: str) -> Locator:
    """Return the links to an address's emails in the mailbox page."""
    return page.get_by_role("listitem").filter(has_text=f"to {address}").get_by_role("link", name=subject)


def open_email(page: Page, address: str, subject: str, count: int = 1) -> None:
    """Open the newest email, looking into the mailbox until there are `count`."""
    page.get_by_role("link", name="mailbox").first.click()
    mails = emails_to(page, address, subject)
    for _ in range(100):
        if mails.count() >= count:
            break
        page.wait_for_timeout(50)
        page.get_by_role("link", name="Look for new mail").click()
    mails.first.click()
    expect(page.get_by_role("heading", name=subject)).to_be_visible()


def button_in_email(page: Page, words: str) -> Locator:
    """Return the link that looks like a button, in the frame of the email that is open."""
    return page.frame_locator("iframe").get_by_role("link", name=words)


def follow(page: Page, words: str = "Set a new password") -> str:
    """Click the email's button and return the link, as emailed; the form is open then."""
    button = button_in_email(page, words)
    link = button.get_attribute("href") or ""
    button.click()
    page.wait_for_url("**/set-password")
    return link


def choose_password(page: Page, password: str = NEW_PASSWORD, again: str | None = None) -> None:
    """Fill in and send the form of the link."""
    page.get_by_label("New password", exact=True).fill(password)
    page.get_by_label("New password, again", exact=True).fill(password if again is None else again)
    submit(page)


def submit(page: Page) -> None:
    """Press the button of the form that is open."""
    press(page, page.locator("main form button[type=submit]").first)


def press(page: Page, button: Locator) -> None:
    """Press a button and wait for the page it leads to, which may have the same address."""
    with page.expect_navigation():
        button.click()


def log_in(page: Page, address: str, password: str = PASSWORD, *, remember: bool = False) -> None:
    """Log in, or try to."""
    page.goto("/login/")
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_label("Remember me on this device").set_checked(remember)
    press(page, page.get_by_role("main").get_by_role("button", name="Log in"))


def every_page(page: Page, site: Site, address: str) -> Iterator[str]:
    """Walk through all pages a person can meet, and yield each one's name while it is shown.

    Args:
        page: a browser where nobody is signed in.
        site: the running site.
        address: nobody's so far.
    """
    site.add_account(address)
    for name in ("/", "/register/", "/login/", "/password-reset/", "/mailbox/"):
        page.goto(name)
        yield name
    register(page, f"new.{address}")
    yield "registration asked for"
    open_email(page, f"new.{address}", "Finish your registration")
    yield "registration mail"
    follow(page, "Choose your password")
    yield "invitation"
    log_in(page, address, "wrong")
    yield "log in, refused"
    page.goto("/password-reset/")
    submit(page)
    yield "reset form with an error"
    request_reset(page, address)
    yield "reset asked for"
    press(page, page.get_by_role("button", name="Send again"))
    yield "reset asked for again"
    open_email(page, address, "Reset your password")
    yield "reset mail"
    page.get_by_text("The text version").click()
    yield "reset mail with its text"
    button_in_email(page, "make it useless").click()
    page.wait_for_url("**/password-reset-cancel/**")
    yield "cancel"
    page.go_back()
    follow(page)
    yield "confirm"
    page.get_by_text("All the rules").click()
    choose_password(page, "password1", again="password2")
    yield "confirm with errors"
    form = page.url
    choose_password(page)
    yield "complete"
    page.goto(form)
    yield "dead link"
    log_in(page, address, NEW_PASSWORD)
    for name in ("/account/", "/", "/mailbox/", "/password-change/"):
        page.goto(name)
        yield f"{name} signed in"
    submit(page)
    yield "password change with errors"
    page.goto("/logout/")
    yield "log out"
    submit(page)
    yield "logged out"
    yield from pages_of_the_notice(page, address)


def pages_of_the_notice(page: Page, address: str) -> Iterator[str]:
    """Walk through what follows from the email about a change, from any page that leads to the mailbox."""
    open_email(page, address, "Your password")
    yield "notice"
    button_in_email(page, "Secure my account").click()
    page.wait_for_url("**/account-secure/**")
    yield "secure"
    page.goto(page.url + "x")
    yield "dead link to secure"
    page.go_back()
    submit(page)
    yield "secured"
