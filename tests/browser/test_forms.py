"""The forms with browsers, password managers, keyboards and screen readers."""

import re

import pytest
from playwright.sync_api import expect

from tests.support.browser import choose_password, follow, log_in, open_email, request_reset
from tests.support.databases import on_sqlite
from tests.support.passwords import NEW_PASSWORD

pytestmark = on_sqlite  # a page is the same from both
EMAIL = ("email", "email", "email")
NEW = ("password", "new-password", None)
FIELDS = """
() => [...document.querySelectorAll("main input:not([type=hidden])")].map(input => [
  input.name, [input.type, input.getAttribute("autocomplete"), input.getAttribute("inputmode")],
])
"""


@pytest.fixture
def confirm_page(page, site, address):
    """Return the page of a reset link."""
    site.add_account(address)
    request_reset(page, address)
    open_email(page, address, "Reset your password")
    follow(page)
    return page


def fields_of(page):
    return {name: tuple(attributes) for name, attributes in page.evaluate(FIELDS)}


def test_the_fields_for_an_address_bring_the_right_keyboard_and_suggestions(page):
    for path in ("/register/", "/password-reset/"):
        page.goto(path)
        assert fields_of(page) == {"email": EMAIL}


def test_the_login_form_is_one_that_password_managers_know(page):
    page.goto("/login/")
    assert fields_of(page) == {
        "email": ("email", "username", "email"),
        "password": ("password", "current-password", None),
        "remember": ("checkbox", None, None),
    }


def test_the_confirm_page_tells_password_managers_whose_password_it_is(confirm_page, address):
    assert fields_of(confirm_page) == {
        "username": ("text", "username", None),
        "new_password1": NEW,
        "new_password2": NEW,
    }
    username = confirm_page.locator("[name=username]")
    assert username.input_value() == address
    assert username.bounding_box()["width"] <= 1
    expect(confirm_page.get_by_role("main").get_by_text(address)).to_be_visible()


def test_the_password_change_page_tells_password_managers_whose_password_it_is(page, site, address):
    site.add_account(address)
    log_in(page, address)
    page.goto("/password-change/")
    assert fields_of(page) == {
        "username": ("text", "username", None),
        "old_password": ("password", "current-password", None),
        "new_password1": NEW,
        "new_password2": NEW,
    }
    assert page.locator("[name=username]").input_value() == address


def test_a_button_shows_the_password_and_hides_it_again(page):
    page.goto("/login/")
    field = page.get_by_label("Password", exact=True)
    field.fill("open sesame")
    page.get_by_role("button", name="Show password").click()
    expect(field).to_have_attribute("type", "text")
    expect(page.get_by_role("status")).to_have_text("Your password is visible")
    button = page.get_by_role("button", name="Hide password")
    expect(button).to_have_text("Hide")
    expect(button).to_have_attribute("aria-controls", "password")
    button.click()
    expect(field).to_have_attribute("type", "password")
    expect(page.get_by_role("status")).to_have_text("Your password is hidden")
    assert field.input_value() == "open sesame"


def test_the_show_button_is_reached_and_pressed_from_the_keyboard(confirm_page):
    field = confirm_page.get_by_label("New password", exact=True)
    field.focus()
    confirm_page.keyboard.press("Tab")
    expect(confirm_page.get_by_role("button", name="Show new password", exact=True)).to_be_focused()
    confirm_page.keyboard.press("Space")
    expect(field).to_have_attribute("type", "text")
    expect(confirm_page.get_by_label("New password, again", exact=True)).to_have_attribute("type", "password")
    confirm_page.keyboard.press("Enter")
    expect(field).to_have_attribute("type", "password")


def test_a_password_that_is_shown_is_hidden_before_it_is_sent(confirm_page):
    confirm_page.get_by_role("button", name="Show new password", exact=True).click()
    confirm_page.evaluate(
        """document.querySelector("main form").addEventListener("submit", event => {
          event.preventDefault();
          document.title = document.querySelector("#new_password1").type;
        })"""
    )
    confirm_page.get_by_role("button", name="Set the new password").click()
    expect(confirm_page).to_have_title("password")


def test_an_error_in_an_address_shows_in_the_title_beside_the_field_and_by_the_cursor(page):
    for path, button in (("/password-reset/", "Send the link"), ("/register/", "Register")):
        page.goto(path)
        page.get_by_label("Email address").fill("not an address")
        page.get_by_role("main").get_by_role("button", name=button).click()
        expect(page).to_have_title(re.compile("^Error: "))
        field = page.get_by_label("Email address")
        expect(field).to_be_focused()
        expect(field).to_have_value("not an address")
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_attribute("aria-describedby", "email_error")
        expect(page.locator("#email_error")).to_be_visible()


def test_all_complaints_about_a_new_password_are_shown_and_the_cursor_is_in_the_first_field(confirm_page):
    choose_password(confirm_page, "password1", again="password2")
    expect(confirm_page).to_have_title("Error: Enter new password · localhost")
    first = confirm_page.get_by_label("New password", exact=True)
    expect(first).to_be_focused()
    expect(first).to_have_attribute("aria-describedby", "new_password1_helptext new_password1_error")
    complaints = confirm_page.locator("#new_password1_error").inner_text()
    assert "too short" in complaints
    assert "too common" in complaints
    expect(confirm_page.locator("#new_password2_error")).to_have_text("The two passwords are not the same.")
    assert first.input_value() == ""


def test_when_only_the_second_password_is_wrong_the_cursor_is_there(confirm_page):
    choose_password(confirm_page, NEW_PASSWORD, again="something else entirely")
    expect(confirm_page.get_by_label("New password, again", exact=True)).to_be_focused()
    expect(confirm_page.get_by_label("New password", exact=True)).not_to_have_attribute("aria-invalid", "true")


def test_the_rules_are_folded_below_the_one_most_people_need(confirm_page):
    expect(confirm_page.locator("#new_password1_helptext")).to_contain_text("at least 15 characters")
    rule = confirm_page.get_by_text("entirely numeric")
    expect(rule).to_be_hidden()
    confirm_page.get_by_text("All the rules").click()
    expect(rule).to_be_visible()


def test_a_refused_login_says_so_and_keeps_the_address(page, address):
    log_in(page, address, "not the password")
    expect(page).to_have_title("Error: Log in · localhost")
    expect(page.get_by_role("alert")).to_contain_text("do not match an account here")
    field = page.get_by_label("Email address")
    expect(field).to_be_focused()
    expect(field).to_have_value(address)
    assert page.get_by_label("Password", exact=True).input_value() == ""


def test_the_reset_can_be_done_from_the_keyboard_alone(page, site, address):
    site.add_account(address)
    page.goto("/password-reset/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type(address)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Password reset sent")).to_be_visible()
    open_email(page, address, "Reset your password")
    page.frame_locator("iframe").get_by_role("link", name="Set a new password").press("Enter")
    page.wait_for_url("**/set-password")
    page.get_by_label("New password", exact=True).focus()
    page.keyboard.type(NEW_PASSWORD)
    page.keyboard.press("Tab")  # the button that shows it
    page.keyboard.press("Tab")  # the rules
    page.keyboard.press("Tab")
    page.keyboard.type(NEW_PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/password-reset-complete/")
