"""The page after the new password was set."""

from pwreset.password_reset.views import PasswordResetCompleteView

PATH = "/password-reset-complete/"


def test_page_leads_to_the_login(visitor) -> None:
    page = visitor.get(PATH)
    assert "<title>Password reset complete · localhost</title>" in page.text
    assert '<a class="button" href="/login/">Log in</a>' in page.text


def test_page_changes_nothing_and_is_open_to_all(visitor, alice) -> None:
    visitor.log_in()
    assert visitor.get(PATH).status_code == 200
    assert visitor.is_signed_in()


def test_template_sees_title_login_url_and_extra_context(mount, visitor) -> None:
    template = {"own.html": "{{ title }}|{{ login_url }}|{{ motto }}"}
    mount(PasswordResetCompleteView, template, template_name="own.html", title="Set", extra_context={"motto": "calm"})
    assert visitor.get("/custom/").text == "Set|/login/|calm"
