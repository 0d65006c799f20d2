"""The page after a request is the same for everybody, except for the address typed in this browser."""

import re

from pwreset.password_reset.views import PasswordResetDoneView
from tests.support.app import Visitor
from tests.support.pages import csrf_token

PATH = "/password-reset/done/"


def test_page_repeats_the_address_typed_in_this_browser(visitor) -> None:
    visitor.request_reset("alcie@example.com")
    page = visitor.get(PATH)
    assert "<strong>alcie@example.com</strong>" in page.text
    assert "<title>Password reset sent · localhost</title>" in page.text


def test_page_escapes_the_address(visitor) -> None:
    visitor.request_reset("o'hara&co@example.com")
    assert "o&#39;hara&amp;co@example.com" in visitor.get(PATH).text


def test_page_shows_another_browser_no_address(app, visitor) -> None:
    visitor.request_reset("alice@example.com")
    page = Visitor(app).get(PATH)
    assert page.status_code == 200
    assert "alice@example.com" not in page.text


def test_page_is_the_same_for_a_known_and_an_unknown_address(app, alice) -> None:
    pages = []
    for address in ("alice@example.com", "nobod@example.com"):
        visitor = Visitor(app)
        visitor.request_reset(address)
        pages.append(re.sub(r'value="[^"]*"', "", visitor.get(PATH).text.replace(address, "")))
    assert pages[0] == pages[1]


def test_page_says_if_there_is_an_account_and_names_the_spam_folder(visitor) -> None:
    visitor.request_reset()
    text = visitor.get(PATH).text
    assert "If there is an account for" in text
    assert "spam folder" in text


def test_page_sends_the_same_email_again(visitor, alice, inbox) -> None:
    visitor.request_reset()
    inbox.deliver()
    inbox.let_a_minute_pass()
    page = visitor.get(PATH)
    address = re.search(r'name="email" value="([^"]*)"', page.text)[1]
    target = re.search(r'<form method="post" action="([^"]*)"', page.text)[1]
    visitor.client.post(target, data={"email": address, "csrf_token": csrf_token(page)})
    assert inbox.deliver_one()["To"] == "alice@example.com"


def test_page_says_where_email_is_kept_on_this_machine(visitor) -> None:
    assert 'href="/mailbox/"' in re.search(r"(?s)<main.*</main>", visitor.get(PATH).text)[0]


def test_template_sees_title_address_and_extra_context(mount, visitor) -> None:
    template = {"own.html": "{{ title }}|{{ email }}|{{ motto }}"}
    mount(PasswordResetDoneView, template, template_name="own.html", title="Sent", extra_context={"motto": "calm"})
    visitor.request_reset()
    assert visitor.get("/custom/").text == "Sent|alice@example.com|calm"
