"""Takes the pictures of docs/pictures: a real site in a real browser, walked through as a person would.

Run it from the project's root with `make screenshots`. It decides which pages are shown and how large; it starts a site
of its own and touches no other instance.
"""

import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from tests.support import browser as walk
from tests.support.browser import CHROMIUM, LAUNCH
from tests.support.databases import SQLite
from tests.support.servers import ROOT
from tests.support.site import Site, running_locally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

PICTURES = ROOT / "docs" / "pictures"
WIDE = {"viewport": {"width": 900, "height": 600}}
DARK = {**WIDE, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 375, "height": 667}}


def main() -> None:
    """Take all pictures."""
    if not CHROMIUM.exists():
        sys.exit(f"There is no {CHROMIUM}. Install it with: sudo apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with (
        TemporaryDirectory() as folder,
        running_locally(Path(folder), SQLite(Path(folder)), SITE_NAME="Example Accounts") as site,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(**LAUNCH)
        take_light(browser, site)
        take_variant(browser, site, "dark", DARK)
        take_variant(browser, site, "phone", PHONE)
        browser.close()


def take_light(browser: "Browser", site: Site) -> None:
    """Follow one reset from the form to the account page."""
    address = "robin@example.com"
    site.add_account(address)
    with opened(browser, site, WIDE) as page:
        page.goto("/password-reset/")
        page.get_by_label("Email address").fill(address)
        take(page, "form")
        walk.submit(page)
        take(page, "done")
        walk.open_email(page, address, "Reset your password")
        take(page, "mail")
        walk.follow(page)
        take(page, "confirm")
        walk.choose_password(page)
        walk.log_in(page, address, walk.NEW_PASSWORD)
        take(page, "account")
        walk.open_email(page, address, "Your password")
        walk.button_in_email(page, "Secure my account").click()
        take(page, "secure")


def take_variant(browser: "Browser", site: Site, name: str, options: dict[str, Any]) -> None:
    """Take the form, and the page of the link with everything wrong."""
    address = f"robin.{name}@example.com"
    site.add_account(address)
    with opened(browser, site, options) as page:
        page.goto("/password-reset/")
        take(page, f"form-{name}")
        walk.request_reset(page, address)
        walk.open_email(page, address, "Reset your password")
        walk.follow(page)
        walk.choose_password(page, "password1", again="password2")
        take(page, f"confirm-errors-{name}")


@contextmanager
def opened(browser: "Browser", site: Site, options: dict[str, Any]) -> "Iterator[Page]":
    """Open a window without motion, so that a picture shows the final colours."""
    context = browser.new_context(base_url=site.url, reduced_motion="reduce", **options)
    yield context.new_page()
    context.close()


def take(page: "Page", name: str) -> None:
    """Save the whole page that is open."""
    page.wait_for_load_state("networkidle")
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    print(f"docs/pictures/{name}.png")


if __name__ == "__main__":
    main()
