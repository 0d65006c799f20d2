"""The local mailbox: where it is stored, who sees it, and that an email in it can do nothing."""

import logging
import os
import re
import stat
import time
from pathlib import Path

import pytest
from flask import Flask

from pwreset.mail.mailbox import MAXIMUM_KEPT, kept_email, kept_emails
from tests.support.app import Inbox, MakeApp, add_user
from tests.support.outbox import deliver, end_waits, request_email
from tests.support.pages import link_in
from tests.support.smtp import SMTPServer


@pytest.fixture
def folder(app: Flask) -> Path:
    return Path(app.instance_path) / "mailbox"


def kept_ids(app: Flask) -> list[str]:
    with app.app_context():
        return [kept.id for kept in kept_emails()]


def age(folder: Path, identity: str, seconds: int) -> None:
    os.utime(folder / f"{identity}.eml", (time.time() - seconds,) * 2)


def keep_one(app: Flask, address: str = "alice@example.com") -> str:
    """Deliver an email and return its name in the mailbox."""
    before = set(kept_ids(app))
    request_email(app, address)
    deliver(app)
    [new] = set(kept_ids(app)) - before
    return new


def test_an_email_is_kept_as_a_file_only_its_owner_reads(app: Flask, folder: Path) -> None:
    identity = keep_one(app)
    assert [path.name for path in folder.iterdir()] == [f"{identity}.eml"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{identity}.eml").stat().st_mode) == 0o600


def test_emails_are_listed_newest_first(app: Flask, folder: Path) -> None:
    for number, name in enumerate(["middle", "newest", "oldest"]):
        age(folder, keep_one(app, f"{name}@example.com"), seconds=[20, 10, 30][number])
    page = app.test_client().get("/mailbox/").text
    assert re.findall(r"to (\w+)@example\.com", page) == ["newest", "middle", "oldest"]


def test_the_newest_200_are_kept(app: Flask, folder: Path) -> None:
    first = keep_one(app)
    age(folder, first, 100)
    second = keep_one(app)
    age(folder, second, 99)
    for number in range(MAXIMUM_KEPT - 1):
        (folder / f"{number}.eml").write_bytes((folder / f"{second}.eml").read_bytes())
    newest = keep_one(app)
    assert MAXIMUM_KEPT == 200
    assert len(list(folder.iterdir())) == 200
    assert not {first, second} & set(kept_ids(app))
    assert newest in kept_ids(app)


def test_a_second_copy_takes_the_first_one_s_place(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    request_email(app)
    with monkeypatch.context() as context:
        context.setattr("pwreset.outbox.settle", lambda *_: None)  # killed between the email and the row
        deliver(app)
    end_waits(app)
    deliver(app)
    assert len(kept_ids(app)) == 1


def test_an_empty_mailbox_says_what_to_do(app: Flask) -> None:
    page = app.test_client().get("/mailbox/")
    assert page.status_code == 200
    assert "No mail yet" in page.text


def test_an_email_is_shown_with_its_subject_address_and_link(app: Flask, inbox: Inbox, alice: int) -> None:
    request_email(app, kind="password_reset")
    link = link_in(inbox.deliver_one())
    [identity] = kept_ids(app)
    page = app.test_client().get(f"/mailbox/{identity}").text
    assert re.search(r"<h1[^>]*>Reset your password at localhost</h1>", page)
    assert "alice@example.com" in page
    assert f'href="{link}"' in page


def test_the_html_is_shown_in_a_sandbox_where_nothing_runs(app: Flask) -> None:
    identity = keep_one(app)
    page = app.test_client().get(f"/mailbox/{identity}").text
    [sandbox] = re.findall(r'<iframe[^>]*\ssandbox="([^"]*)"', page)
    assert f'src="/mailbox/{identity}/html"' in page
    assert set(sandbox.split()) == {"allow-popups", "allow-top-navigation-by-user-activation"}


def test_the_html_page_lets_nothing_run_and_nobody_else_frame_it(app: Flask) -> None:
    response = app.test_client().get(f"/mailbox/{keep_one(app)}/html")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'none'"
    assert policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'self'"
    assert response.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_link_in_the_frame_opens_in_the_full_window(app: Flask) -> None:
    page = app.test_client().get(f"/mailbox/{keep_one(app)}/html").text
    assert page.startswith('<!doctype html><base target="_top">')
    assert 'href="http://127.0.0.1:5000/password-reset/"' in page


@pytest.mark.parametrize(
    "identity",
    [
        "../secret_key",
        "..%2Fsecret_key",
        "..%2F..%2F..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "..",
        "%2e%2e",
        "..%5Csecret_key",
        "secret",
        "SECRET",
        "secret.eml",
        "secret%00",
        "secret%0A",
        "%C3%A9",
        "a" * 65,
        "a" * 5000,
    ],
)
@pytest.mark.parametrize("ending", ["", "/html"])
def test_no_name_leads_out_of_the_folder(identity: str, ending: str, app: Flask, folder: Path) -> None:
    keep_one(app)
    content = b"Subject: secret\n\nsecret\n"
    (folder.parent / "secret_key.eml").write_bytes(content)
    (folder.parent / "secret.eml").write_bytes(content)
    for name in ("SECRET", "secret\n", "é"):
        (folder / f"{name}.eml").write_bytes(content)
    response = app.test_client().get(f"/mailbox/{identity}{ending}")
    assert response.status_code == 404


def test_a_name_with_a_zero_byte_is_no_email(app: Flask) -> None:
    with app.app_context():
        assert kept_email("a\x00b") is None


PAGES = ["/mailbox/", "/mailbox/{}", "/mailbox/{}/html"]


@pytest.mark.parametrize("path", PAGES)
def test_another_machine_finds_no_mailbox(path: str, app: Flask) -> None:
    path = path.format(keep_one(app))
    for address in ("192.0.2.1", "10.0.0.1", "2001:db8::1", ""):
        response = app.test_client().get(path, environ_overrides={"REMOTE_ADDR": address})
        assert response.status_code == 404
    assert app.test_client().get(path, environ_overrides={"REMOTE_ADDR": "::1"}).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_public_mode_has_no_mailbox(path: str, app: Flask, make_app: MakeApp) -> None:
    path = path.format(keep_one(app))
    public = make_app(
        PUBLIC_URL="https://accounts.example.com",
        SECRET_KEY="kN3-vX8_qL1wZ5tR7yB9mC2dF4gH6jP0",
        EMAIL_HOST="localhost",
        EMAIL_FROM="accounts@example.com",
    )
    assert public.test_client().get(path, base_url="https://accounts.example.com").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_with_a_mail_server_there_is_no_mailbox(path: str, app: Flask, make_app: MakeApp) -> None:
    path = path.format(keep_one(app))
    with_server = make_app(EMAIL_HOST="localhost", EMAIL_FROM="accounts@example.com")
    assert with_server.test_client().get(path).status_code == 404


def test_with_a_mail_server_no_email_is_kept(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = make_app(EMAIL_HOST="localhost", EMAIL_PORT=server.port, EMAIL_FROM="accounts@example.com")
        request_email(app)
        deliver(app)
        assert len(server.messages) == 1
    assert kept_ids(app) == []


def test_the_log_names_the_page_and_never_the_token(
    app: Flask, inbox: Inbox, alice: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    request_email(app, kind="password_reset")
    link = link_in(inbox.deliver_one())
    [identity] = kept_ids(app)
    lines = [record.getMessage() for record in caplog.records if record.name == "pwreset.outbox.delivery"]
    assert lines == [f"Email 1 (password_reset) kept: http://127.0.0.1:5000/mailbox/{identity}"]
    assert link.rpartition("/")[2] not in caplog.text
    assert "alice@example.com" not in "".join(lines)


def test_a_hostile_subject_is_text_on_every_page(make_app: MakeApp) -> None:
    app = make_app(SITE_NAME='"><script>alert(1)</script>')
    identity = keep_one(app)
    for path in ("/mailbox/", f"/mailbox/{identity}", f"/mailbox/{identity}/html"):
        page = app.test_client().get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page


def test_a_hostile_text_part_is_text(app: Flask) -> None:
    identity = keep_one(app, "a&b'c@example.com")
    page = app.test_client().get(f"/mailbox/{identity}").text
    assert "a&amp;b&#39;c@example.com" in page
    assert "a&b'c" not in page


def test_an_email_to_an_international_address_is_readable(make_app: MakeApp) -> None:
    app = make_app(SITE_NAME="Bücherei Łódź")
    add_user(app, "josé@bücher.example", None)
    request_email(app, "josé@bücher.example", "password_reset")
    deliver(app)
    [identity] = kept_ids(app)
    page = app.test_client().get(f"/mailbox/{identity}").text
    assert re.search(r"<h1[^>]*>Reset your password at Bücherei Łódź</h1>", page)
    assert "josé@xn--bcher-kva.example" in page
    assert "josé@bücher.example" in app.test_client().get(f"/mailbox/{identity}/html").text
