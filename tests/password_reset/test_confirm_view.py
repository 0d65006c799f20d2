"""The confirm page: the link, the form, and the new password."""

import re
import time
import unicodedata

import pytest
import time_machine
from markupsafe import escape
from sqlalchemy import select
from wtforms import ValidationError

from pwreset.extensions import db
from pwreset.models import SecurityEvent
from pwreset.monitoring import counters
from pwreset.password_reset.views import INTERNAL_RESET_SESSION_TOKEN, PasswordResetConfirmView
from pwreset.web.forms import SetPasswordForm, help_texts
from tests.support.app import Inbox, Visitor, add_user
from tests.support.pages import csrf_token, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.reset_pages import DEAD, SET_PASSWORD, complaints, custom, events_of, main_of, send, token_of

# The way in.


def test_link_leads_to_the_form_under_a_path_without_the_token(visitor, link) -> None:
    answer = visitor.get(path_of(link))
    assert (answer.status_code, answer.location) == (302, SET_PASSWORD)


def test_link_with_a_trailing_slash_leads_to_the_form_too(visitor, link) -> None:
    answer = visitor.get(path_of(link) + "/")
    assert (answer.status_code, answer.location) == (302, SET_PASSWORD + "/")
    assert "new_password1" in visitor.get(answer.location).text


def test_token_waits_in_the_session(visitor, link) -> None:
    visitor.get(path_of(link))
    with visitor.client.session_transaction() as session:
        assert session[INTERNAL_RESET_SESSION_TOKEN] == token_of(link)


def test_token_is_in_no_header_and_no_body_after_the_link(visitor, link) -> None:
    redirect = visitor.get(path_of(link))
    shown = visitor.get(redirect.location)
    refused = send(visitor, shown, new_password1="short", new_password2="short")
    done = send(visitor, refused, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    complete = visitor.get(done.location)
    for page in (redirect, shown, refused, done, complete):
        headers = "\n".join(f"{name}: {value}" for name, value in page.headers if name != "Set-Cookie")
        assert token_of(link) not in headers + page.text
        assert token_of(link).partition(".")[2] not in headers + page.text


def test_session_cookie_is_out_of_reach_of_scripts_and_of_other_sites(visitor, link) -> None:
    cookie = visitor.get(path_of(link)).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_session_holds_no_token_once_the_password_is_set(visitor, link) -> None:
    visitor.choose(link)
    with visitor.client.session_transaction() as session:
        assert INTERNAL_RESET_SESSION_TOKEN not in session


def test_pages_behind_a_link_are_kept_by_no_cache(visitor, link) -> None:
    for page in (visitor.get(path_of(link)), visitor.get(SET_PASSWORD)):
        assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_email_scanner_does_not_use_the_link_up(method, app, visitor, link) -> None:
    scanner = Visitor(app)
    for _ in range(3):
        scanner.client.open(path_of(link), method=method, follow_redirects=True)
    assert visitor.choose(link).location == "/password-reset-complete/"


def test_form_may_be_opened_again_before_it_is_sent(visitor, form_page) -> None:
    again = visitor.get(form_page.request.path)
    assert send(visitor, again, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD).status_code == 302


def test_link_may_be_opened_in_two_browsers_before_either_is_used(app, visitor, link) -> None:
    other = Visitor(app)
    for browser in (visitor, other):
        assert "new_password1" in browser.open_link(link).text


def test_opening_the_link_is_remembered_for_the_owner(app, visitor, link) -> None:
    visitor.open_link(link)
    assert events_of(app).count("link_opened") == 1


def test_post_to_the_path_with_the_token_only_redirects(visitor, form_page, link, stored, alice) -> None:
    fields = {"csrf_token": csrf_token(form_page), "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    answer = visitor.client.post(path_of(link), data=fields)
    assert answer.location == SET_PASSWORD
    assert stored(alice).check_password(PASSWORD)


# The page.


def test_page_names_the_account_and_what_will_happen(form_page) -> None:
    assert "<title>Enter new password · localhost</title>" in form_page.text
    assert "<strong>alice@example.com</strong>" in main_of(form_page)
    assert "will be logged out" in main_of(form_page)


def test_page_carries_the_address_for_password_managers(form_page) -> None:
    field = re.search(r'<input[^>]*name="username"[^>]*>', form_page.text)[0]
    assert 'value="alice@example.com"' in field
    assert 'autocomplete="username"' in field
    assert 'tabindex="-1"' in field
    assert "readonly" in field


@pytest.mark.parametrize("name", ["new_password1", "new_password2"])
def test_password_field_tells_browsers_that_it_is_a_new_one(name, form_page) -> None:
    field = re.search(rf'<input[^>]*name="{name}"[^>]*>', form_page.text)[0]
    assert 'type="password"' in field
    assert 'autocomplete="new-password"' in field


def test_page_shows_every_rule_and_ties_the_first_to_its_field(make_app, alice) -> None:
    app = make_app(PASSWORD_MIN_LENGTH=17)
    page = Visitor(app).open_link(Inbox(app).reset_link())
    with app.app_context():
        rules = help_texts()
    assert "at least 17 characters" in rules[0]
    assert all(str(escape(rule)) in page.text for rule in rules)
    assert re.search(r'aria-describedby="new_password1_helptext"[^>]*name="new_password1"', page.text)
    assert rules[0] in re.search(r'(?s)id="new_password1_helptext">.*?</', page.text)[0]


# Choosing.


def test_new_password_works_and_the_old_one_does_not(app, visitor, link) -> None:
    answer = visitor.choose(link)
    assert (answer.status_code, answer.location) == (302, "/password-reset-complete/")
    Visitor(app).log_in(password=PASSWORD)
    assert Visitor(app).log_in(password=PASSWORD).status_code == 200
    assert Visitor(app).log_in(password=NEW_PASSWORD).location == "/account/"


def test_choosing_logs_nobody_in(visitor, link) -> None:
    visitor.choose(link)
    assert not visitor.is_signed_in()


def test_used_link_is_dead(app, visitor, link) -> None:
    visitor.choose(link)
    for browser in (visitor, Visitor(app)):
        assert DEAD in browser.open_link(link).text


def test_form_left_open_while_the_link_was_used_sets_nothing(app, visitor, form_page, link, stored, alice) -> None:
    Visitor(app).choose(link)
    answer = send(
        visitor, form_page, new_password1="another password of mine", new_password2="another password of mine"
    )
    assert (answer.status_code, DEAD in answer.text) == (200, True)
    assert stored(alice).check_password(NEW_PASSWORD)


def test_form_sent_twice_sets_the_password_once(visitor, form_page, app) -> None:
    for _ in range(2):
        answer = send(visitor, form_page, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    assert answer.status_code == 400  # the session, and with it the form's CSRF token, ended with the first
    assert events_of(app).count("completed") == 1


def test_one_of_two_links_ends_the_other(visitor, app, link, inbox) -> None:
    second = inbox.reset_link()
    visitor.choose(second)
    assert DEAD in Visitor(app).open_link(link).text


def test_the_same_password_may_be_set_again(visitor, link, stored, alice) -> None:
    before = stored(alice)
    assert visitor.choose(link, PASSWORD).status_code == 302
    after = stored(alice)
    assert after.check_password(PASSWORD)
    assert (after.password_hash, after.security_stamp) != (before.password_hash, before.security_stamp)


def test_different_passwords_are_refused_and_the_link_lives_on(visitor, link, stored, alice) -> None:
    page = visitor.choose(link, NEW_PASSWORD, again="quiet rivers under new bridges")
    assert complaints(page) == {"new_password2": ["The two passwords are not the same."]}
    assert "<title>Error: " in page.text
    assert stored(alice).check_password(PASSWORD)
    assert visitor.choose(link).status_code == 302


@pytest.mark.parametrize(
    ("first", "second", "fields"),
    [
        (None, None, {"new_password1", "new_password2"}),
        ("", "", {"new_password1", "new_password2"}),
        (NEW_PASSWORD, None, {"new_password2"}),
        (None, NEW_PASSWORD, {"new_password1"}),
    ],
)
def test_missing_password_is_complained_about_where_it_is_missing(first, second, fields, visitor, form_page) -> None:
    given = {"new_password1": first, "new_password2": second}
    page = send(visitor, form_page, **{name: text for name, text in given.items() if text is not None})
    assert complaints(page) == {name: ["Enter a password."] for name in fields}


def test_all_complaints_are_shown_at_once(visitor, link) -> None:
    page = visitor.choose(link, "12345678", again="other")
    first = complaints(page)["new_password1"]
    assert first[:3] == [
        "This password is too short. It must contain at least 15 characters.",
        "This password is too common.",
        "This password is entirely numeric.",
    ]
    assert first[3].startswith("This password is easy to guess.")
    assert complaints(page)["new_password2"] == ["The two passwords are not the same."]


def test_password_like_the_address_is_refused(visitor, link) -> None:
    page = visitor.choose(link, "alice@example.com")
    assert any("too similar" in text for text in complaints(page)["new_password1"])


def test_refused_password_is_not_sent_back(visitor, link) -> None:
    assert "tooshort1" not in visitor.choose(link, "tooshort1").text


def test_password_that_would_be_html_is_no_part_of_the_page(visitor, link) -> None:
    assert "<script>alert" not in visitor.choose(link, "<script>alert(1)</script>").text


def test_spaces_around_a_password_are_kept(app, visitor, link) -> None:
    password = "   seven lanterns over the fjord  "
    visitor.choose(link, password)
    assert Visitor(app).log_in(password=password.strip()).status_code == 200
    assert Visitor(app).log_in(password=password).location == "/account/"


def test_unicode_password_works_in_each_of_its_spellings(app, visitor, link) -> None:
    password = "größere Äpfel für Zoë 🍏"
    visitor.choose(link, unicodedata.normalize("NFD", password).replace(" ", "\u00a0"))
    assert Visitor(app).log_in(password=password).location == "/account/"


@pytest.mark.parametrize("password", ["quiet rivers\0under old bridges", "\0" * 20, "quiet rivers\r\nunder bridges"])
def test_password_with_control_characters_is_refused(password, visitor, link, stored, alice) -> None:
    page = visitor.choose(link, password)
    assert any("can’t be typed" in text for text in complaints(page)["new_password1"])
    assert stored(alice).check_password(PASSWORD)


def test_password_of_1024_characters_is_accepted_and_of_1025_refused(app, visitor, link) -> None:
    longest = (NEW_PASSWORD * 40)[:1024]
    assert "new_password1" in complaints(visitor.choose(link, longest + "x"))
    assert visitor.choose(link, longest).status_code == 302
    assert Visitor(app).log_in(password=longest).location == "/account/"


def test_user_without_a_password_chooses_one(app, visitor, inbox, stored) -> None:
    user_id = add_user(app, "invited@example.com", None)
    visitor.choose(inbox.reset_link("invited@example.com"))
    assert stored(user_id).check_password(NEW_PASSWORD)


# An invitation opens the same page.


def test_invited_page_speaks_of_choosing_and_of_no_logout(visitor, invitation) -> None:
    page = visitor.open_link(invitation)
    assert "<title>Choose your password · localhost</title>" in page.text
    assert "<strong>new@example.com</strong>" in main_of(page)
    assert "logged out" not in main_of(page)


def test_reset_page_speaks_of_setting(form_page) -> None:
    assert "Choose your password" not in form_page.text


def test_invited_user_chooses_a_password_and_gets_no_notice(visitor, invitation, inbox) -> None:
    visitor.choose(invitation)
    assert inbox.waiting() == 0
    assert visitor.log_in("new@example.com", NEW_PASSWORD).location == "/account/"


def test_used_invitation_is_dead(visitor, invitation) -> None:
    visitor.choose(invitation)
    assert DEAD in visitor.open_link(invitation).text


def test_invitation_outlives_a_reset_link(visitor, invitation) -> None:
    with time_machine.travel(259_200 - 60 + time.time(), tick=False):
        assert "new_password1" in visitor.open_link(invitation).text


# Options, under Django's names.


@pytest.mark.parametrize(
    ("success_url", "location"), [("/custom/done/", "/custom/done/"), ("password_reset.reset", "/password-reset/")]
)
def test_success_url_is_a_path_or_an_endpoint(success_url, location, mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, success_url=success_url)
    assert visitor.choose(custom(inbox.reset_link())).location == location


def test_reset_url_token_stands_in_the_path(mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, reset_url_token="choose")
    link = custom(inbox.reset_link())
    assert visitor.get(path_of(link)).location == "/custom/MQ/choose"
    with visitor.client.session_transaction() as session:
        assert session[INTERNAL_RESET_SESSION_TOKEN] == token_of(link)
    assert visitor.choose(link).location == "/password-reset-complete/"


def test_post_reset_login_signs_the_account_in(app, mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, post_reset_login=True)
    visitor.choose(custom(inbox.reset_link()))
    assert "alice@example.com" in visitor.get("/account/").text
    assert events_of(app)[-2:] == ["completed", "logged_in"]


def test_nobody_is_logged_in_where_the_option_is_off(app, visitor, link, alice, stored) -> None:
    visitor.choose(link)
    assert stored(alice).last_login is None
    assert events_of(app)[-1] == "completed"


def test_post_reset_login_ends_with_the_browser(mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, post_reset_login=True)
    visitor.choose(custom(inbox.reset_link()))
    with visitor.client.session_transaction() as session:
        assert not session.permanent


def test_events_tell_whose_link_it_was_and_who_used_it(app, mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, post_reset_login=True)
    link = custom(inbox.reset_link())
    visitor.client.environ_base |= {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "Firefox/140"}
    visitor.choose(link)
    with app.app_context():
        told = db.session.execute(
            select(SecurityEvent.kind, SecurityEvent.user_id, SecurityEvent.client_address, SecurityEvent.user_agent)
            .order_by(SecurityEvent.id.desc())
            .limit(3)
        ).all()
        assert counters.totals()["completed", "reset"] == 1
    assert told == [(kind, alice, "192.0.2.7", "Firefox/140") for kind in ("logged_in", "completed", "link_opened")]


def test_post_reset_login_replaces_the_session_that_was_signed_in(app, mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, post_reset_login=True)
    add_user(app, "bob@example.com", PASSWORD)
    visitor.log_in("bob@example.com")
    visitor.choose(custom(inbox.reset_link()))
    page = visitor.get("/account/").text
    assert "alice@example.com" in page
    assert "bob@example.com" not in page


def test_post_reset_login_signs_in_who_was_signed_in_already(mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, post_reset_login=True)
    visitor.log_in()
    visitor.choose(custom(inbox.reset_link()))
    assert visitor.is_signed_in()


def test_post_reset_login_ends_the_sessions_elsewhere(app, mount, visitor, alice, inbox) -> None:
    mount(PasswordResetConfirmView, post_reset_login=True)
    other = Visitor(app)
    other.log_in()
    visitor.choose(custom(inbox.reset_link()))
    assert not other.is_signed_in()


SEEN = (
    "{{ title }}|{{ validlink }}|{{ form.user.email if form else None }}|{{ user.email if user else None }}|{{ motto }}"
)


def test_template_of_a_valid_link_sees_the_account_the_form_and_extra_context(mount, visitor, alice, inbox) -> None:
    options = {"template_name": "own.html", "title": "New", "extra_context": {"motto": "calm"}}
    mount(PasswordResetConfirmView, {"own.html": SEEN}, **options)
    page = visitor.open_link(custom(inbox.reset_link()))
    assert page.text == "New|True|alice@example.com|alice@example.com|calm"


def test_template_of_a_dead_link_sees_no_account_and_no_form(mount, visitor, alice) -> None:
    mount(PasswordResetConfirmView, {"own.html": SEEN}, template_name="own.html", extra_context={"motto": "calm"})
    assert visitor.get("/custom/MQ/x").text == "Password reset unsuccessful|False|None|None|calm"


def test_extra_context_replaces_the_title_of_a_valid_link_only(mount, visitor, alice, inbox) -> None:
    options = {"template_name": "own.html", "extra_context": {"title": "Almost there"}}
    mount(PasswordResetConfirmView, {"own.html": SEEN}, **options)
    assert visitor.get("/custom/MQ/x").text.startswith("Password reset unsuccessful|False")
    assert visitor.open_link(custom(inbox.reset_link())).text.startswith("Almost there|True")


@pytest.mark.parametrize("failing", [{"new_password1"}, {"new_password2"}, {"new_password1", "new_password2"}])
def test_form_class_of_a_team_adds_its_own_complaints(failing, mount, visitor, alice, inbox) -> None:
    def complain(self, field) -> None:
        if field.name in failing:
            raise ValidationError("Not this one.")

    checks = {"validate_new_password1": complain, "validate_new_password2": complain}
    mount(PasswordResetConfirmView, form_class=type("OurForm", (SetPasswordForm,), checks))
    page = visitor.choose(custom(inbox.reset_link()))
    assert complaints(page) == {name: ["Not this one."] for name in failing}


def test_form_class_of_a_team_with_checks_of_its_own_keeps_the_rules(mount, visitor, alice, inbox) -> None:
    def accept(self, field) -> None:
        """Accept everything."""

    checks = {"validate_new_password1": accept, "validate_new_password2": accept}
    mount(PasswordResetConfirmView, form_class=type("OurForm", (SetPasswordForm,), checks))
    page = visitor.choose(custom(inbox.reset_link()), "short", "other")
    found = complaints(page)
    assert "This password is too short. It must contain at least 15 characters." in found["new_password1"]
    assert found["new_password2"] == ["The two passwords are not the same."]


def test_rule_without_uidb64_and_token_says_what_it_lacks(app) -> None:
    app.add_url_rule("/custom/", view_func=PasswordResetConfirmView.as_view("custom"))
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(TypeError, match="'uidb64' and 'token'"):
        Visitor(app).get("/custom/")


@pytest.mark.parametrize(
    "path",
    ["/password-reset/", "/password-reset/done/", "/password-reset-confirm/abc/def", "/password-reset-complete/"],
)
def test_pages_of_the_reset_need_no_login(path, visitor) -> None:
    assert visitor.get(path).status_code == 200
