"""The back button, two tabs, a form left open, a double click."""

import pytest
from playwright.sync_api import expect

from tests.support.browser import (
    button_in_email,
    choose_password,
    follow,
    log_in,
    open_email,
    request_reset,
    submit,
)
from tests.support.passwords import NEW_PASSWORD

BAD_REQUEST = "Failed to load resource: the server responded with a status of 400 (BAD REQUEST)"
NOT_FOUND = "Failed to load resource: the server responded with a status of 404 (NOT FOUND)"


def mailed(page, site, address):
    """Make an account and open the email that resets its password."""
    site.add_account(address)
    request_reset(page, address)
    open_email(page, address, "Reset your password")


def test_a_page_that_is_not_there_says_so_and_leads_home(page, site, complaints):
    assert page.goto("/nothing/here").status == 404
    expect(page).to_have_title("Page not found · localhost")
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    page.get_by_role("link", name="Start page").click()
    expect(page).to_have_url(f"{site.url}/")
    assert complaints == [NOT_FOUND]
    complaints.clear()


def test_a_form_whose_session_is_gone_says_so_and_leads_back_to_it(page, site, address, complaints):
    page.goto("/password-reset/")
    page.context.clear_cookies()
    page.get_by_label("Email address").fill(address)
    submit(page)
    expect(page.get_by_role("heading", name="This form has expired")).to_be_visible()
    assert complaints == [BAD_REQUEST]
    complaints.clear()
    page.get_by_role("link", name="Try again").click()
    page.get_by_label("Email address").fill(address)
    submit(page)
    expect(page).to_have_url(f"{site.url}/password-reset/done/")


def test_a_new_password_sent_without_the_session_changes_nothing_and_the_email_still_works(
    page, site, address, complaints
):
    mailed(page, site, address)
    link = follow(page)
    page.context.clear_cookies()
    choose_password(page)
    expect(page.get_by_role("heading", name="This form has expired")).to_be_visible()
    assert complaints == [BAD_REQUEST]
    complaints.clear()
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("main")).to_contain_text("open it from the mail once more")
    page.goto(link)
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")


def test_the_link_may_be_opened_twice_before_it_is_used(page, site, address):
    mailed(page, site, address)
    link = follow(page)
    page.go_back()
    assert follow(page) == link
    page.reload()
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")


def test_of_two_tabs_with_the_form_the_first_sets_the_password_and_the_second_is_led_on(
    page, site, address, complaints
):
    mailed(page, site, address)
    link = follow(page)
    second = page.context.new_page()
    second.goto(link)
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")
    # The session in this browser ended, and with it the right to send the second form.
    choose_password(second, "another password for tab two")
    expect(second.get_by_role("heading", name="This form has expired")).to_be_visible()
    assert complaints == [BAD_REQUEST]
    complaints.clear()
    second.get_by_role("link", name="Try again").click()
    expect(second.get_by_role("main")).to_contain_text("This link is no longer valid.")
    second.get_by_role("link", name="Ask for a new link").click()
    expect(second).to_have_url(f"{site.url}/password-reset/")
    log_in(page, address, NEW_PASSWORD)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def test_two_browsers_with_the_form_set_one_password(page, new_context, site, address):
    mailed(page, site, address)
    link = follow(page)
    second = new_context().new_page()
    second.goto(link)
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")
    choose_password(second, "another password for tab two")
    expect(second.get_by_role("main")).to_contain_text("This link is no longer valid.")
    log_in(page, address, NEW_PASSWORD)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def test_a_double_click_sets_the_password_and_says_so(page, site, address):
    mailed(page, site, address)
    follow(page)
    page.get_by_label("New password", exact=True).fill(NEW_PASSWORD)
    page.get_by_label("New password, again", exact=True).fill(NEW_PASSWORD)
    posts = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    # The second click comes while the first one's answer is under way.
    page.evaluate(
        """() => {
          const button = document.querySelector("main form button[type=submit]");
          button.click();
          setTimeout(() => button.click(), 20);
        }"""
    )
    page.wait_for_url("**/password-reset-complete/")
    expect(page.get_by_role("heading", name="Password reset complete")).to_be_visible()
    assert len(posts) == 1


def test_the_back_button_after_the_reset_shows_no_error_page_and_no_form(page, site, address):
    mailed(page, site, address)
    follow(page)
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")
    page.go_back()
    expect(page.get_by_role("main")).to_contain_text("This link is no longer valid.")
    page.go_back()
    expect(button_in_email(page, "Set a new password")).to_be_visible()
    page.go_forward()
    page.go_forward()
    expect(page.get_by_role("heading", name="Password reset complete")).to_be_visible()


def test_the_back_button_after_asking_shows_the_form_and_it_can_be_sent_again(page, site, address):
    request_reset(page, address)
    page.go_back()
    page.get_by_label("Email address").fill(address)
    submit(page)
    expect(page).to_have_url(f"{site.url}/password-reset/done/")


def test_the_back_button_after_logging_out_shows_nothing_of_the_account(page, site, address):
    site.add_account(address)
    log_in(page, address)
    expect(page.get_by_role("main")).to_contain_text(address)
    page.get_by_role("link", name="Log out").click()
    submit(page)
    page.go_back()
    page.go_back()
    expect(page).to_have_url(f"{site.url}/login/?next=%2Faccount%2F")


def go_back_whole(page):
    """Press the back button, and return whether the page came from the back/forward cache."""
    page.evaluate("window.left = true; setTimeout(() => history.back())")
    page.wait_for_function("window.left !== true && window.kept !== undefined")
    return page.evaluate("window.kept")


@pytest.mark.parametrize("last_page", ["/logout/", "/account/"])
def test_a_browser_with_a_back_forward_cache_drops_the_pages_of_an_ended_session(
    keeping_page, site, address, last_page
):
    """ASVS 5.0, 14.3.1. Chromium keeps pages with `no-store` too, and drops them when a cookie changes."""
    page = keeping_page
    site.add_account(address)
    log_in(page, address)
    page.goto("/password-change/")
    assert go_back_whole(page), "the browser keeps no page: this shows nothing"
    expect(page.get_by_role("main")).to_contain_text(address)
    page.goto(last_page)
    submit(page)
    for _ in range(2):
        assert not go_back_whole(page)
        expect(page.get_by_role("main")).not_to_contain_text(address)


def test_the_reset_of_one_account_signs_out_another_one_in_the_same_browser(page, site, address):
    other = f"other.{address}"
    site.add_account(other)
    mailed(page, site, address)
    mail = page.url
    log_in(page, other)
    page.goto(mail)
    follow(page)
    expect(page.get_by_role("link", name="Account")).to_be_visible()
    choose_password(page)
    page.wait_for_url("**/password-reset-complete/")
    page.goto("/account/")
    expect(page).to_have_url(f"{site.url}/login/?next=%2Faccount%2F")


def test_the_done_page_without_a_question_before_it_is_a_page(page, site):
    page.goto("/password-reset/done/")
    expect(page.get_by_role("main")).to_contain_text("the address you entered")
    assert page.get_by_role("button", name="Send again").count() == 0
    page.get_by_role("link", name="Enter another address").click()
    expect(page).to_have_url(f"{site.url}/password-reset/")
