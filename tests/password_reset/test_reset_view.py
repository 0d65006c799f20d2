"""The reset page: its form, the row that a request writes, and the email that follows."""

import io
import re

import pytest
from sqlalchemy import select
from wtforms import ValidationError

from pwreset import accounts
from pwreset.accounts.tokens import PasswordResetTokenGenerator
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.password_reset.views import (
    PasswordResetCompleteView,
    PasswordResetConfirmView,
    PasswordResetDoneView,
    PasswordResetView,
)
from pwreset.web.forms import PasswordResetForm
from tests.support.app import Inbox, Visitor, add_user
from tests.support.pages import csrf_token, link_in, path_of, text_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.reset_pages import DEAD, custom

PATH = "/password-reset/"


def mailed_to(inbox) -> list[str]:
    """Deliver what waits and return whom it went to."""
    inbox.deliver()
    return [str(mail["To"]) for mail in inbox.emails()]


def test_page_asks_for_an_address(visitor) -> None:
    page = visitor.get(PATH)
    assert page.status_code == 200
    assert "<title>Password reset · localhost</title>" in page.text


def test_address_field_tells_browsers_what_it_is_for(visitor) -> None:
    field = re.search(r'<input[^>]*name="email"[^>]*>', visitor.get(PATH).text)[0]
    assert 'type="email"' in field
    assert 'autocomplete="email"' in field
    assert 'inputmode="email"' in field


def test_asking_leads_to_the_done_page(visitor, alice) -> None:
    answer = visitor.request_reset()
    assert (answer.status_code, answer.location) == (302, "/password-reset/done/")


def test_asking_emails_the_account_one_link(visitor, alice, inbox) -> None:
    visitor.request_reset()
    mail = inbox.deliver_one()
    assert (mail["To"], mail["From"]) == ("alice@example.com", "noreply@localhost")
    assert mail["Subject"] == "Reset your password at localhost"
    assert re.fullmatch(r"http://localhost/password-reset-confirm/[\w-]+/[\w-]+\.[\w-]+", link_in(mail))


def test_email_has_a_text_part_before_its_html_part(visitor, alice, inbox) -> None:
    visitor.request_reset()
    text, html = inbox.deliver_one().iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert "<html" not in text.get_content()
    assert "<html" in html.get_content()


def test_asking_sends_nothing_by_itself(visitor, alice, inbox) -> None:
    visitor.request_reset()
    assert (inbox.waiting(), inbox.emails()) == (1, [])


def test_unknown_address_gets_the_same_answer_and_no_email(visitor, inbox) -> None:
    answer = visitor.request_reset("nobody@example.com")
    assert (answer.status_code, answer.location) == (302, "/password-reset/done/")
    assert mailed_to(inbox) == []
    assert inbox.waiting() == 0


def test_deactivated_account_gets_no_email(app, visitor, alice, inbox) -> None:
    with app.app_context():
        accounts.set_active(accounts.find_by_id(alice), active=False)
        db.session.commit()
    visitor.request_reset()
    assert mailed_to(inbox) == []


def test_account_without_a_password_may_set_one_by_a_reset(app, visitor, inbox) -> None:
    """Django emails nothing here; this app has no other login that such an account could be for."""
    add_user(app, "invited@example.com", None)
    visitor.choose(inbox.reset_link("invited@example.com"))
    assert visitor.log_in("invited@example.com", NEW_PASSWORD).location == "/account/"


@pytest.mark.parametrize(
    "typed", ["ALICE@EXAMPLE.COM", " alice@example.com ", "Alice@Example.com", "ａlice@example.com"]
)
def test_address_is_found_in_another_spelling_and_emailed_as_stored(typed, visitor, alice, inbox) -> None:
    visitor.request_reset(typed)
    assert mailed_to(inbox) == ["alice@example.com"]


@pytest.mark.parametrize(
    ("one", "other"), [("mike@example.org", "mıke@example.org"), ("mike@ixample.org", "mike@ıxample.org")]
)
def test_of_two_addresses_that_look_alike_only_the_one_typed_is_emailed(one, other, app, visitor, inbox) -> None:
    """The dotless i becomes an I when upper-cased, as in CVE-2019-19844."""
    for address in (one, other):
        add_user(app, address, PASSWORD)
    visitor.request_reset(other)
    inbox.deliver()
    assert [other in text_of(mail) for mail in inbox.emails()] == [True]


@pytest.mark.parametrize(
    ("stored", "typed"), [("mike@example.org", "mıke@example.org"), ("mike@ixample.org", "mike@ıxample.org")]
)
def test_address_that_only_looks_like_an_account_is_not_emailed(stored, typed, app, visitor, inbox) -> None:
    add_user(app, stored, PASSWORD)
    visitor.request_reset(typed)
    assert mailed_to(inbox) == []


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "   ",
        "not valid",
        "alice",
        "alice@",
        "@example.com",
        "alice@example",
        "a b@example.com",
        "a@b@example.com",
        "alice@example.com\0",
        "al\0ice@example.com",
        "alice@example.com,bob@example.com",
        "x" * 250 + "@example.com",
        "alice@example.com\nBcc: bob@example.com",
        "Alice <alice@example.com>",
        "alice@exa_mple.com",
        "\u202ealice@a.com",
    ],
)
def test_what_is_no_address_is_refused_on_the_page(typed, visitor, inbox) -> None:
    page = visitor.request_reset(typed)
    assert page.status_code == 200
    assert "<title>Error: Password reset" in page.text
    assert 'id="email_error"' in page.text
    assert inbox.waiting() == 0


def test_form_keeps_the_address_in_its_stored_form(app) -> None:
    with app.test_request_context(PATH, method="POST", data={"email": " Alice@EXAMPLE.com "}):
        form = PasswordResetForm(meta={"csrf": False})
        assert form.validate()
        assert form.email.data == "Alice@example.com"


def test_case_before_the_at_sign_is_kept_with_the_account(app) -> None:
    with app.app_context():
        assert accounts.create("Alice@example.com", PASSWORD).email == "Alice@example.com"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost:dr.frankenstein@evil.example", "localhost@evil.example", ""]
)
def test_host_header_of_another_site_is_refused_and_nothing_is_emailed(host, visitor, alice, inbox) -> None:
    token = csrf_token(visitor.get(PATH))
    form = {"email": "alice@example.com", "csrf_token": token}
    answer = visitor.client.post(PATH, data=form, headers={"Host": host})
    assert (answer.status_code, inbox.waiting()) == (400, 0)


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Forwarded-Server", "Forwarded", "X-Original-Host"])
def test_header_of_a_proxy_chooses_no_link(header, visitor, alice, inbox) -> None:
    form = {"email": "alice@example.com", "csrf_token": csrf_token(visitor.get(PATH))}
    visitor.client.post(PATH, data=form, headers={header: "host=evil.example"})
    assert "evil" not in inbox.deliver_one().as_string()


def test_somebody_signed_in_may_ask_too(visitor, alice, inbox) -> None:
    visitor.log_in()
    visitor.request_reset()
    assert mailed_to(inbox) == ["alice@example.com"]


def test_path_without_its_slash_leads_to_the_page(visitor) -> None:
    answer = visitor.get("/password-reset")
    assert answer.status_code == 308
    assert answer.location.endswith(PATH)


# What a client may send instead of the form.


def test_a_repeated_request_shows_the_same_page_for_every_address(visitor, alice) -> None:
    def said(address: str) -> bool:
        visitor.request_reset(address)
        return "You asked again." in visitor.get("/password-reset/done/").text

    assert [said(f"{name}@example.com") for name in ("alice", "alice", "nobody", "nobody", "alice")] == [
        False,
        True,
        False,
        True,
        False,
    ]


def test_form_without_its_csrf_token_is_refused(visitor, alice, inbox) -> None:
    answer = visitor.client.post(PATH, data={"email": "alice@example.com"})
    assert (answer.status_code, inbox.waiting()) == (400, 0)


def test_csrf_token_of_another_browser_is_refused(app, visitor, alice, inbox) -> None:
    form = {"email": "alice@example.com", "csrf_token": csrf_token(Visitor(app).get(PATH))}
    visitor.get(PATH)
    assert (visitor.client.post(PATH, data=form).status_code, inbox.waiting()) == (400, 0)


@pytest.mark.parametrize("body", [{"email": "alice@example.com"}, {"email": 5}, [1], "text", 5])
def test_json_is_refused_even_with_a_csrf_token(body, visitor, alice, inbox) -> None:
    headers = {"X-CSRFToken": csrf_token(visitor.get(PATH))}
    assert visitor.client.post(PATH, json=body, headers=headers).status_code == 400
    assert inbox.waiting() == 0


def test_broken_json_is_refused(visitor) -> None:
    headers = {"X-CSRFToken": csrf_token(visitor.get(PATH)), "Content-Type": "application/json"}
    assert visitor.client.post(PATH, data="{", headers=headers).status_code == 400


def test_file_in_place_of_the_address_is_refused(visitor, inbox) -> None:
    form = {"csrf_token": csrf_token(visitor.get(PATH)), "email": (io.BytesIO(b"alice@example.com"), "name.txt")}
    assert visitor.client.post(PATH, data=form).status_code == 400
    assert inbox.waiting() == 0


@pytest.mark.parametrize("addresses", [["alice@example.com", "bob@example.com"], ["alice@example.com"] * 2])
def test_repeated_field_is_refused(addresses, visitor, alice, inbox) -> None:
    form = {"email": addresses, "csrf_token": csrf_token(visitor.get(PATH))}
    assert (visitor.client.post(PATH, data=form).status_code, inbox.waiting()) == (400, 0)


def test_body_of_a_megabyte_is_refused(visitor, inbox) -> None:
    form = {"email": "x" * 1_000_000, "csrf_token": csrf_token(visitor.get(PATH))}
    assert (visitor.client.post(PATH, data=form).status_code, inbox.waiting()) == (413, 0)


def test_bytes_that_are_no_utf_8_find_no_account(visitor, alice, inbox) -> None:
    body = f"email=alice%ff@example.com&csrf_token={csrf_token(visitor.get(PATH))}"
    answer = visitor.client.post(PATH, data=body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 302
    assert mailed_to(inbox) == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", [PATH, "/password-reset/done/", "/password-reset-confirm/MQ/set-password", "/password-reset-complete/"]
)
def test_other_methods_are_refused(method, path, visitor) -> None:
    answer = visitor.client.open(path, method=method)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


# Options, under Django's names.


@pytest.mark.parametrize(
    ("success_url", "location"),
    [
        ("/custom/done/", "/custom/done/"),
        ("https://www.example.com/", "https://www.example.com/"),
        ("users.login", "/login/"),
    ],
)
def test_success_url_is_a_path_an_address_or_an_endpoint(success_url, location, mount, visitor) -> None:
    mount(PasswordResetView, success_url=success_url)
    assert visitor.submit("/custom/", email="alice@example.com").location == location


def test_template_sees_title_form_and_extra_context(mount, visitor) -> None:
    template = {"own.html": "{{ title }}|{{ form.email.name }}|{{ motto }}"}
    mount(PasswordResetView, template, template_name="own.html", title="Lost?", extra_context={"motto": "calm"})
    assert visitor.get("/custom/").text == "Lost?|email|calm"


def test_extra_context_may_replace_the_title(mount, visitor) -> None:
    mount(PasswordResetView, extra_context={"title": "Another title"})
    assert "<h1>Another title</h1>" in visitor.get("/custom/").text


def test_form_class_of_a_team_decides_what_is_accepted(mount, visitor, inbox) -> None:
    class OurStaffOnly(PasswordResetForm):
        def validate_email(self, field) -> None:
            if not field.data.endswith("@staff.example.com"):
                raise ValidationError("Use your staff address.")

    mount(PasswordResetView, form_class=OurStaffOnly)
    assert "Use your staff address." in visitor.submit("/custom/", email="alice@example.com").text
    assert visitor.submit("/custom/", email="bob@staff.example.com").status_code == 302


def test_email_comes_from_from_email(mount, visitor, alice, inbox) -> None:
    mount(PasswordResetView, from_email="Support <support@example.com>")
    visitor.submit("/custom/", email="alice@example.com")
    assert inbox.deliver_one()["From"] == "Support <support@example.com>"


def test_extra_email_context_reaches_subject_text_and_html(mount, visitor, alice, inbox) -> None:
    templates = {
        "subject.txt": "{{ greeting }}\n{{ site_name }}",
        "body.txt": "{{ greeting }} {{ numbers[1] }}\n\n{{ link }}\n",
        "body.html": "<html>{{ greeting }}</html>",
    }
    mount(
        PasswordResetView,
        templates,
        subject_template_name="subject.txt",
        email_template_name="body.txt",
        html_email_template_name="body.html",
        extra_email_context={"greeting": "Grüß Gott", "numbers": [1, 2]},
    )
    visitor.submit("/custom/", email="alice@example.com")
    mail = inbox.deliver_one()
    text, html = mail.iter_parts()
    assert mail["Subject"] == "Grüß Gott localhost"
    assert text.get_content().startswith("Grüß Gott 2")
    assert html.get_content().strip() == "<html>Grüß Gott</html>"


def test_text_written_for_django_makes_the_same_link(mount, visitor, alice, inbox) -> None:
    text = "{{ protocol }}://{{ domain }}/password-reset-confirm/{{ uid }}/{{ token }}\n{{ link }}\n{{ user.email }}\n"
    mount(PasswordResetView, {"body.txt": text}, email_template_name="body.txt")
    visitor.submit("/custom/", email="alice@example.com")
    built, link, address = text_of(inbox.deliver_one()).splitlines()
    assert built == link
    assert address == "alice@example.com"


def test_extra_email_context_may_replace_the_domain(mount, visitor, alice, inbox) -> None:
    templates = {"body.txt": "{{ protocol }}://{{ domain }}/reset/{{ uid }}/{{ token }}\n"}
    context = {"domain": "custom.example.com"}
    mount(PasswordResetView, templates, email_template_name="body.txt", extra_email_context=context)
    visitor.submit("/custom/", email="alice@example.com")
    assert link_in(inbox.deliver_one()).startswith("http://custom.example.com/reset/")


def test_email_has_no_html_part_with_html_email_template_name_none(mount, visitor, alice, inbox) -> None:
    mount(PasswordResetView, html_email_template_name=None)
    visitor.submit("/custom/", email="alice@example.com")
    mail = inbox.deliver_one()
    assert mail.get_content_type() == "text/plain"
    assert not mail.is_multipart()


def test_options_of_an_email_travel_with_its_row(app, mount, visitor) -> None:
    mount(PasswordResetView, from_email="support@example.com", extra_email_context={"greeting": "Hello"})
    visitor.submit("/custom/", email="alice@example.com")
    with app.app_context():
        options = db.session.scalar(select(OutboxMessage)).options
    assert options["from_email"] == "support@example.com"
    assert options["extra_email_context"] == {"greeting": "Hello"}


@pytest.mark.parametrize("context", [{"user": object()}, {"now": {1, 2}}, {"text": b"bytes"}, "text", [1], {(1, 2): 3}])
def test_extra_email_context_that_could_not_be_stored_is_refused_at_once(context) -> None:
    with pytest.raises(TypeError, match=r"^extra_email_context must be a dict of JSON values, since the email is writ"):
        PasswordResetView.as_view("page", extra_email_context=context)


@pytest.mark.parametrize(
    "view", [PasswordResetView, PasswordResetDoneView, PasswordResetConfirmView, PasswordResetCompleteView]
)
@pytest.mark.parametrize(
    "option", ["template", "succes_url", "token_generator", "_check", "validlink", "render", "get_form", "__class__"]
)
def test_unknown_option_is_refused_at_once_by_its_name(view, option) -> None:
    with pytest.raises(TypeError, match=option):
        view.as_view("page", **{option: "x"})


class WithMotto(PasswordResetTokenGenerator):
    """A team's own generator: its links live ten minutes and depend on one thing more."""

    lifetime = 600

    def state(self, user) -> list:
        return [*super().state(user), "motto"]


def test_generator_given_to_create_app_makes_and_checks_the_links(make_app) -> None:
    app = make_app(token_generator=WithMotto())
    user_id = add_user(app, "alice@example.com", PASSWORD)
    visitor, inbox = Visitor(app), Inbox(app)
    visitor.request_reset()
    mail = inbox.deliver_one()
    token = link_in(mail).rpartition("/")[2]
    with app.app_context():
        user = accounts.find_by_id(user_id)
        assert WithMotto().check_token(user, token)
        assert not PasswordResetTokenGenerator().check_token(user, token)
    assert "10 minutes" in text_of(mail)
    assert visitor.choose(link_in(mail)).location == "/password-reset-complete/"


def test_generator_that_replaces_check_token_decides_which_links_open(make_app) -> None:
    class Refusing(PasswordResetTokenGenerator):
        def check_token(self, user, token) -> bool:
            return False

    app = make_app(token_generator=Refusing())
    add_user(app, "alice@example.com", PASSWORD)
    visitor = Visitor(app)
    visitor.request_reset()
    page = visitor.open_link(link_in(Inbox(app).deliver_one())).text
    assert "<form" not in page
    assert DEAD in page


def test_generator_given_to_create_app_leaves_invitations_alone(make_app) -> None:
    app = make_app(token_generator=WithMotto())
    visitor, inbox = Visitor(app), Inbox(app)
    visitor.submit("/register/", email="new@example.com")
    mail = inbox.deliver_one()
    assert "3 days" in text_of(mail)
    assert visitor.choose(link_in(mail)).location == "/password-reset-complete/"


def test_link_emailed_by_a_view_with_options_opens_it_and_ours(mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView)
    link = inbox.reset_link()
    assert visitor.get(path_of(custom(link))).location == "/custom/MQ/set-password"
    assert visitor.get(path_of(link)).location == "/password-reset-confirm/MQ/set-password"
