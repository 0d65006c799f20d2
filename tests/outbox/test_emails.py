"""What an email contains, whom it goes to, and what a stranger cannot put into it."""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from flask import Flask
from jinja2 import ChoiceLoader, DictLoader
from sqlalchemy import update

from pwreset import outbox
from pwreset.clock import humanize_duration
from pwreset.extensions import db
from pwreset.models import OutboxMessage, User
from pwreset.outbox import Outcome, Result, emails
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, MakeApp, add_user
from tests.support.databases import Database
from tests.support.outbox import deliver, request_email, rows
from tests.support.pages import link_in, text_of
from tests.support.passwords import PASSWORD

KINDS = ["password_reset", "register", "password_changed"]
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
PUBLIC = {
    "PUBLIC_URL": "https://accounts.example.com",
    "SECRET_KEY": "kN3-vX8_qL1wZ5tR7yB9mC2dF4gH6jP0",
    "EMAIL_HOST": "localhost",
    "EMAIL_FROM": "accounts@example.com",
}
LONG_URL = "https://" + ".".join(["a" * 63] * 30) + ".example"


def mailed(app: Flask, kind: str = "password_reset", address: str = "alice@example.com", **client: str) -> EmailMessage:
    """Ask, and return the email that is written: parsed from the bytes that would go out."""
    return parsed(written(app, kind, address, **client))


def written(app: Flask, kind: str = "password_reset", address: str = "alice@example.com", **client: str) -> bytes:
    with app.app_context():
        outbox.enqueue(kind, address, RequestInfo(**client))
        db.session.commit()
        row = outbox.claim()
        assert row is not None
        content = write(row)
        outbox.settle(row, Outcome(Result.SENT))
        return content


def write(row: OutboxMessage) -> bytes:
    draft = emails.draft_for(row)
    assert draft is not None
    return emails.write(row, draft).as_bytes()


def parsed(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=policy.default)


def html_of(mail: EmailMessage) -> str:
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content())


def app_with_alice(make_app: MakeApp, **settings: Any) -> Flask:
    app = make_app(**settings)
    add_user(app, "alice@example.com", PASSWORD)
    return app


# The parts


@pytest.mark.parametrize("kind", KINDS)
def test_every_email_has_a_text_and_an_html_part_with_the_same_link(kind: str, make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app), kind)
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert f'href="{link_in(mail)}"' in html_of(mail)


@pytest.mark.parametrize(
    ("kind", "address", "subject"),
    [
        ("password_reset", "alice@example.com", "Reset your password at The Library"),
        ("register", "new@example.com", "Finish your registration at The Library"),
        ("register", "alice@example.com", "You already have an account at The Library"),
        ("password_changed", "alice@example.com", "Your password at The Library was changed"),
    ],
)
def test_the_subject_names_the_site(kind: str, address: str, subject: str, make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app, SITE_NAME="The Library"), kind, address)
    assert mail["Subject"] == subject


@pytest.mark.parametrize("kind", KINDS)
def test_the_link_stands_on_a_line_of_its_own(kind: str, make_app: MakeApp) -> None:
    lines = text_of(mailed(app_with_alice(make_app), kind)).split("\n")
    links = re.compile(r"http\S+/(password-reset|account-secure)")
    places = [number for number, line in enumerate(lines) if links.search(line)]
    assert len(places) == (2 if kind == "password_reset" else 1)
    assert all(re.fullmatch(r"http\S+", lines[place]) for place in places)
    assert [(lines[place - 1], lines[place + 1]) for place in places] == [("", "")] * len(places)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3600, "1 hour"), (5400, "90 minutes"), (86400 * 3, "3 days"), (61, "61 seconds"), (60, "1 minute")],
)
def test_the_links_lifetime_is_the_settings_in_words(seconds: int, words: str, make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app, PASSWORD_RESET_TIMEOUT=seconds))
    assert f"expires in {words}." in text_of(mail)
    assert f"expires in {words}." in html_of(mail)


def test_an_invitations_lifetime_is_a_setting_of_its_own(make_app: MakeApp) -> None:
    mail = mailed(make_app(INVITE_TIMEOUT=7200, PASSWORD_RESET_TIMEOUT=60), "register")
    assert "expires in 2 hours." in text_of(mail)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (59, "59 seconds"), (120, "2 minutes"), (86400, "1 day"), (90000, "25 hours")],
)
def test_a_time_in_words_takes_the_largest_unit_that_fits(seconds: int, words: str) -> None:
    assert humanize_duration(seconds) == words


def test_an_email_says_when_and_with_which_browser_it_was_asked_for(make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app), address="alice@example.com", user_agent=FIREFOX)
    assert re.search(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC,\nwith Firefox on Windows\.", text_of(mail))


def test_an_email_names_the_network_address_of_who_asked(make_app: MakeApp) -> None:
    app = app_with_alice(make_app)
    with app.app_context():
        outbox.enqueue("password_reset", "alice@example.com", RequestInfo(address="192.0.2.7"))
        row = outbox.claim()
        assert row is not None
        mail = parsed(write(row))
    assert "from 192.0.2.7" in text_of(mail)
    assert "from 192.0.2.7" in html_of(mail)


# The headers


@pytest.mark.parametrize("kind", KINDS)
def test_no_holiday_notice_answers(kind: str, make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app), kind)
    assert mail["Auto-Submitted"] == "auto-generated"


def test_the_message_id_is_the_rows_and_the_same_on_a_second_try(make_app: MakeApp) -> None:
    app = app_with_alice(make_app, EMAIL_FROM="accounts@example.com", EMAIL_HOST="localhost")
    request_email(app, kind="password_reset")
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        first, second = parsed(write(row)), parsed(write(row))
        identity = row.message_id
    assert first["Message-ID"] == second["Message-ID"] == f"<{identity}@example.com>"


def test_two_rows_have_two_message_ids(make_app: MakeApp) -> None:
    app = app_with_alice(make_app)
    assert mailed(app)["Message-ID"] != mailed(app)["Message-ID"]


def test_the_email_of_mail_check_names_no_host_of_ours(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "build-host.internal")
    app = make_app(EMAIL_FROM="accounts@example.com", EMAIL_HOST="localhost")
    with app.app_context():
        mail = parsed(emails.test_message("alice@example.com").as_bytes())
    assert mail["Message-ID"].endswith("@example.com>")


def test_a_non_ascii_site_name_survives(make_app: MakeApp) -> None:
    app = app_with_alice(make_app, SITE_NAME="Bücherei Łódź 図書館")
    content = written(app)
    assert content.isascii()
    mail = parsed(content)
    assert mail["Subject"] == "Reset your password at Bücherei Łódź 図書館"
    assert "Bücherei Łódź 図書館" in text_of(mail)
    assert "Bücherei Łódź 図書館" in html_of(mail)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SITE_NAME": "ü" * 100},
        {"SITE_NAME": "x" * 100},
        {**PUBLIC, "SITE_NAME": "x", "PUBLIC_URL": LONG_URL},
    ],
    ids=["ordinary", "letters with dots", "one long word", "long host"],
)
def test_no_line_is_longer_than_998_octets_and_no_octet_needs_8_bits(
    kind: str, settings: dict[str, Any], make_app: MakeApp
) -> None:
    content = written(app_with_alice(make_app, **settings), kind)
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    assert content.isascii()
    encodings = {part["Content-Transfer-Encoding"] for part in parsed(content).walk() if not part.is_multipart()}
    assert encodings <= {"7bit", "quoted-printable"}


@pytest.mark.parametrize("gap", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_long_line_is_folded_whatever_python_takes_for_the_end_of_a_line(gap: str, make_app: MakeApp) -> None:
    app = make_app(EMAIL_FROM="accounts@example.com", EMAIL_HOST="localhost")
    with app.app_context():
        body = gap.join(["x" * 600] * 3)
        message = emails.Message(subject="Long", recipients=["alice@example.com"], body=body, sender="a@example.com")
        content = message.as_bytes()
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    assert parsed(content).get_content().strip("\r\n") == body


def test_a_link_longer_than_a_line_is_complete_when_read(make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app, **{**PUBLIC, "SITE_NAME": "x", "PUBLIC_URL": LONG_URL}))
    assert re.fullmatch(rf"{LONG_URL}/password-reset-confirm/\S+/\S{{50}}", link_in(mail))


@pytest.mark.parametrize(
    "sender",
    [
        "x@example.com\r\nBcc: evil@example.com",
        "Bank\nSubject: Yours <x@example.com>",
        "x@example.com\rBcc: y@z.example",
    ],
)
def test_a_rows_sender_adds_no_header(sender: str, app: Flask, inbox: Inbox) -> None:
    request_email(app, from_email=sender)
    deliver(app)
    [row] = rows(app)
    assert (inbox.emails(), row.failed_at is not None) == ([], True)


@pytest.mark.parametrize("name", ["A\nBcc: evil@example.com", "A\r\nB", "A\x00B", "A\u2028B", "A\x85B"])
def test_a_site_name_of_two_lines_stops_the_start(name: str, make_app: MakeApp) -> None:
    with pytest.raises(Exception, match="SITE_NAME goes into the subject"):
        make_app(SITE_NAME=name)


def test_line_ends_in_a_subject_of_ones_own_are_spaces(app: Flask, inbox: Inbox) -> None:
    template = "Reset\r\nBcc: evil@example.com\n\n at {{ site_name }}\n"
    add_templates(app, **{"own.txt": template})
    request_email(app, subject_template_name="own.txt")
    mail = inbox.deliver_one()
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Reset Bcc: evil@example.com at localhost"


@pytest.mark.parametrize("template", [None, ""])
def test_a_row_may_have_no_html_part(template: str | None, app: Flask, inbox: Inbox) -> None:
    request_email(app, html_email_template_name=template)
    mail = inbox.deliver_one()
    assert mail.get_content_type() == "text/plain"
    assert link_in(mail).endswith("/password-reset/")


def test_a_row_brings_templates_and_words_of_its_own(app: Flask, inbox: Inbox, alice: int) -> None:
    django = (
        "{{ greeting }}, {{ user.email }}: {{ protocol }}://{{ domain }}/password-reset-confirm/{{ uid }}/{{ token }}"
    )
    add_templates(app, **{"own.txt": django, "own.html": "<p>{{ greeting }}</p>"})
    own = {"email_template_name": "own.txt", "html_email_template_name": "own.html"}
    request_email(app, kind="password_reset", extra_email_context={"greeting": "Ahoy & <ho>"}, **own)
    mail = inbox.deliver_one()
    text, link = text_of(mail).strip().split(": ")
    assert text == "Ahoy & <ho>, alice@example.com"
    assert "new_password1" in app.test_client().get(link, follow_redirects=True).text
    assert html_of(mail).strip() == "<p>Ahoy &amp; &lt;ho&gt;</p>"


def add_templates(app: Flask, **texts: str) -> None:
    app.jinja_env.loader = ChoiceLoader([DictLoader(texts), app.jinja_env.loader])  # type: ignore[list-item]


# Whom it goes to


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        ("josé@example.com", "JOSÉ@example.com"),
        ("jose\u0301@example.com", "josé@example.com"),
        ("alice@example.com", "ａｌｉｃｅ@example.com"),
        ("alice@example.com", "ALICE@EXAMPLE.COM"),
        ("mike@example.org", "MIKE@example.org"),
        ("strasse@example.com", "straße@example.com"),
        ("office@example.com", "oﬃce@example.com"),
    ],
)
@pytest.mark.parametrize("kind", ["password_reset", "register"])
def test_email_goes_to_the_address_stored_and_never_to_the_one_typed(
    kind: str, stored: str, typed: str, make_app: MakeApp
) -> None:
    app = make_app()
    add_user(app, stored, PASSWORD)
    request_email(app, typed, kind)
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        draft = emails.draft_for(row)
        assert draft is not None
        message = emails.write(row, draft)
        content = message.as_bytes()
    assert message.send_to == {stored}
    assert parsed(content)["To"] == stored
    if typed.casefold() != stored:
        assert typed not in content.decode()


@pytest.mark.parametrize("lookalike", ["mıke@example.org", "mike@examp1e.org", "mikе@example.org"])
def test_an_address_that_only_looks_alike_is_somebody_else(lookalike: str, make_app: MakeApp) -> None:
    app = make_app()
    add_user(app, "mike@example.org", PASSWORD)
    request_email(app, lookalike, "password_reset")
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        assert emails.draft_for(row) is None


def test_a_domain_that_looks_alike_in_ascii_gets_no_email(make_app: MakeApp) -> None:
    # CVE-2019-19844: the Kelvin sign folds to k, and the email must not go to the domain that was typed.
    app = make_app()
    add_user(app, "alice@kite.example", PASSWORD)
    request_email(app, "alice@\u212aite.example", "password_reset")
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        draft = emails.draft_for(row)
        assert draft is not None
        assert emails.write(row, draft).send_to == {"alice@kite.example"}


# What nobody can put into it


@pytest.mark.parametrize(
    "header",
    ["You won! Call +1 555 0100 Firefox/1", "<b>Firefox/</b> Windows", "Firefox/140 Windows\r\nhttps://evil.example"],
)
def test_the_browser_is_named_in_our_words(header: str, make_app: MakeApp) -> None:
    content = written(app_with_alice(make_app), user_agent=header)
    mail = parsed(content)
    for text in (text_of(mail), html_of(mail)):
        assert re.search(r"with\s+Firefox( on Windows)?\.", re.sub(r"<[^>]+>", "", text))
    assert b"won" not in content
    assert b"evil" not in content
    assert b"<b>" not in content


def test_a_browser_we_do_not_know_is_not_named(make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app), user_agent="You won")
    assert not re.search(r"UTC,\s+with", text_of(mail))
    assert "You won" not in html_of(mail)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:5000", "javascript:alert(1)//"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_public_url_always_starts_the_link(kind: str, origin: str, make_app: MakeApp) -> None:
    content = written(app_with_alice(make_app, **PUBLIC), kind, origin=origin)
    mail = parsed(content)
    assert re.match(r"https://accounts\.example\.com/(password-reset|account-secure)", link_in(mail))
    assert origin not in text_of(mail) + html_of(mail)


@pytest.mark.parametrize("host", ["127.0.0.1:5001", "localhost:8080", "[::1]:5000", "localhost"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_local_link_starts_with_the_origin_the_form_was_posted_to(kind: str, host: str, make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app), kind, origin=f"http://{host}")
    assert re.match(rf"http://{re.escape(host)}/(password-reset|account-secure)", link_in(mail))
    assert link_in(mail) in html_of(mail)


def test_the_port_of_a_public_url_stays_in_the_link(make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app, **{**PUBLIC, "PUBLIC_URL": "https://accounts.example.com:8443"}))
    assert link_in(mail).startswith("https://accounts.example.com:8443/password-reset-confirm/")


def test_without_an_origin_a_local_link_starts_with_the_usual_one(make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app))
    assert link_in(mail).startswith("http://127.0.0.1:5000/password-reset-confirm/")


@pytest.mark.parametrize("kind", KINDS)
def test_html_escapes_the_site_name(kind: str, make_app: MakeApp) -> None:
    mail = mailed(app_with_alice(make_app, SITE_NAME="<b>\"&'</b>"), kind)
    assert "<b>" not in html_of(mail)
    assert "&lt;b&gt;" in html_of(mail)
    assert "<b>\"&'</b>" in text_of(mail)


def test_html_escapes_the_address(make_app: MakeApp) -> None:
    app = make_app()
    hostile = "a&b'{{7*7}}@example.com"
    html = html_of(mailed(app, "password_changed", hostile))
    assert "a&amp;b&#39;{{7*7}}@example.com" in html


def test_the_token_is_in_no_table(app: Flask, inbox: Inbox, alice: int, database: Database) -> None:
    request_email(app, kind="password_reset")
    token = link_in(inbox.deliver_one()).rpartition("/")[2]
    stored = b"\n".join(database.contents().values())
    assert len(token) == 50
    assert token.encode() not in stored
    assert b"alice@example.com" in stored


def test_an_account_without_a_password_that_asks_for_a_reset_gets_a_link(make_app: MakeApp) -> None:
    app = make_app()
    add_user(app, "alice@example.com", None)
    assert "/password-reset-confirm/" in link_in(mailed(app))


def test_the_link_is_made_for_the_account_as_it_is_when_the_email_is_written(make_app: MakeApp) -> None:
    app = app_with_alice(make_app)
    first = link_in(mailed(app))
    with app.app_context():
        db.session.execute(update(User).values(security_stamp="another"))
        db.session.commit()
    page = app.test_client().get(first[len("http://127.0.0.1:5000") :], follow_redirects=True)
    assert "new_password1" not in page.text
    again = link_in(mailed(app))
    page = app.test_client().get(again[len("http://127.0.0.1:5000") :], follow_redirects=True)
    assert "new_password1" in page.text
