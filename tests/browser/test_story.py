"""A reset and the pages around it, as a person goes through them in a browser."""

from playwright.sync_api import Page, expect

from tests.support.browser import (
    button_in_email,
    choose_password,
    emails_to,
    follow,
    log_in,
    open_email,
    register,
    request_reset,
    submit,
)
from tests.support.passwords import NEW_PASSWORD

FIRST_PASSWORD = "seven green lanterns drift"


def test_a_person_registers_loses_the_password_and_sets_a_new_one(page, new_context, site, address):
    # Register: the password is chosen behind the emailed link.
    register(page, address)
    open_email(page, address, "Finish your registration at localhost")
    follow(page, "Choose your password")
    expect(page.get_by_role("main")).to_contain_text(address)
    choose_password(page, FIRST_PASSWORD)
    expect(page.get_by_role("heading", name="Password reset complete")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Log in").click()
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Password", exact=True).fill(FIRST_PASSWORD)
    submit(page)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    page.get_by_role("link", name="Log out").click()
    submit(page)
    expect(page.get_by_role("status")).to_have_text("You have been logged out.")

    # Somebody else, or the same person elsewhere, is signed in for two weeks.
    elsewhere = new_context().new_page()
    log_in(elsewhere, address, FIRST_PASSWORD, remember=True)
    expect(elsewhere.get_by_role("main")).to_contain_text(address)

    # Ask for a reset.
    request_reset(page, address)
    open_email(page, address, "Reset your password at localhost")
    link = follow(page)
    assert link.startswith(f"{site.url}/password-reset-confirm/")
    token = link.rpartition("/")[2]
    assert len(token) == 50
    assert page.url == link.replace(token, "set-password")
    assert page.get_by_role("heading", name="Enter new password").is_visible()
    assert token not in page.content()

    # Set it. Nobody is signed in by that, and everybody else is signed out.
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")
    assert token not in page.evaluate("document.referrer")
    page.goto("/account/")
    expect(page).to_have_url(f"{site.url}/login/?next=%2Faccount%2F")
    elsewhere.reload()
    expect(elsewhere).to_have_url(f"{site.url}/login/?next=%2Faccount%2F")

    log_in(page, address, FIRST_PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("do not match")
    log_in(page, address, NEW_PASSWORD)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()

    # The old link is no longer valid and leads to the form; the owner was notified.
    page.goto(link)
    expect(page.get_by_role("main")).to_contain_text("This link is no longer valid.")
    assert page.locator("form").count() == 0
    page.get_by_role("link", name="Ask for a new link").click()
    expect(page).to_have_url(f"{site.url}/password-reset/")
    open_email(page, address, "Your password at localhost was changed")


def test_the_reset_works_without_javascript(new_context, site, address):
    site.add_account(address)
    page = new_context(java_script_enabled=False).new_page()
    request_reset(page, address)
    open_email(page, address, "Reset your password")
    follow(page)
    assert page.get_by_role("button", name="Show").count() == 0
    choose_password(page, "password1")
    expect(page.locator(".errors").first).to_contain_text("too short")
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")
    log_in(page, address, NEW_PASSWORD)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def test_registering_works_without_javascript(new_context, address):
    page = new_context(java_script_enabled=False).new_page()
    register(page, address)
    open_email(page, address, "Finish your registration")
    follow(page, "Choose your password")
    choose_password(page)
    log_in(page, address, NEW_PASSWORD)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def test_the_link_in_the_text_of_the_email_works_too(page, site, address):
    site.add_account(address)
    request_reset(page, address)
    open_email(page, address, "Reset your password")
    page.get_by_text("The text version").click()
    page.locator("pre").get_by_role("link", name="/password-reset-confirm/").click()
    page.wait_for_url("**/set-password")
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")


def test_the_done_page_says_the_same_whether_or_not_there_is_an_account(page, site, address):
    site.add_account(address)
    words = []
    for asked in (address, f"un{address}"):
        request_reset(page, asked)
        words.append((page.title(), page.get_by_role("main").inner_html().replace(asked, "ADDRESS")))
    known, unknown = (_without_csrf_tokens(page, html) for _, html in words)
    assert words[0][0] == words[1][0]
    assert known == unknown
    assert "ADDRESS" in known


def test_send_again_emails_again_and_says_so(page, site, address):
    site.add_account(address)
    request_reset(page, address)
    open_email(page, address, "Reset your password")
    site.let_a_minute_pass()
    page.goto("/password-reset/done/")
    expect(page.get_by_role("main")).to_contain_text(address)
    assert page.get_by_role("status").count() == 0
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status")).to_contain_text("You asked again.")
    expect(page.get_by_role("heading", name="Password reset sent")).to_be_visible()
    open_email(page, address, "Reset your password", count=2)


def test_the_done_pages_say_where_the_email_is_kept(page, site, address):
    for ask in (register, request_reset):
        ask(page, address)
        assert "Look in your spam folder" in page.get_by_role("main").inner_text()
        page.get_by_role("link", name="open the mailbox").click()
        expect(page.get_by_role("heading", name="Mailbox")).to_be_visible()
        assert page.url == f"{site.url}/mailbox/"


def test_an_unknown_address_gets_no_email(page, site, address):
    site.add_account(address)
    request_reset(page, f"un{address}")
    request_reset(page, address)  # rows are claimed in order: when this one was sent, the first is settled
    open_email(page, address, "Reset your password")
    page.goto("/mailbox/")
    assert emails_to(page, f"un{address}", "").count() == 0


def _without_csrf_tokens(page: Page, html: str) -> str:
    return page.evaluate(
        """html => {
          const main = new DOMParser().parseFromString(html, "text/html").body;
          main.querySelectorAll("[name=csrf_token]").forEach(input => input.setAttribute("value", ""));
          return main.innerHTML;
        }""",
        html,
    )


def test_an_owner_takes_back_what_a_stranger_did(page, new_context, site, address):
    # A stranger with a link sets a password and logs in.
    site.add_account(address)
    link = site.flask("users", "reset-link", address).stdout.split()[0].replace("http://127.0.0.1:5000", site.url)
    stranger = new_context().new_page()
    stranger.goto(link)
    choose_password(stranger)
    log_in(stranger, address, NEW_PASSWORD)
    expect(stranger.get_by_role("heading", name="Your account")).to_be_visible()

    # The owner gets the notice, and presses its button.
    page.goto("/")
    open_email(page, address, "Your password at localhost was changed")
    button_in_email(page, "Secure my account").click()
    expect(page.get_by_role("heading", name="Secure your account")).to_be_visible()
    submit(page)
    expect(page.get_by_role("status")).to_contain_text("the old password has ended")
    stranger.reload()
    expect(stranger).to_have_url(f"{site.url}/login/?next=%2Faccount%2F")
    log_in(stranger, address, NEW_PASSWORD)
    expect(stranger.get_by_role("alert")).to_be_visible()

    # The emailed reset gives the account back.
    open_email(page, address, "Reset your password at localhost")
    follow(page)
    choose_password(page, FIRST_PASSWORD)
    log_in(page, address, FIRST_PASSWORD)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text('ended by "This wasn\'t me"')


def test_an_owner_revokes_a_link_that_somebody_else_requested(page, site, address):
    site.add_account(address)
    request_reset(page, address)
    open_email(page, address, "Reset your password at localhost")
    link = button_in_email(page, "Set a new password").get_attribute("href")
    button_in_email(page, "make it useless").click()
    expect(page.get_by_role("main")).to_contain_text(address)
    submit(page)
    expect(page.get_by_role("main")).to_contain_text("Every link we mailed you is useless now")
    page.goto(link)
    expect(page.get_by_role("heading", name="Password reset unsuccessful")).to_be_visible()
