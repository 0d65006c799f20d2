"""Eight people with one link and four workers with one outbox: across processes each thing happens once."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Barrier

import pytest

from pwreset import outbox
from pwreset.extensions import db
from pwreset.request_info import RequestInfo
from tests.support.app import MakeApp, add_user
from tests.support.clock import PATIENCE
from tests.support.instance import Instance, Serve
from tests.support.pages import link_in, path_of
from tests.support.passwords import PASSWORD
from tests.support.servers import Browser, Gunicorn, Page
from tests.support.smtp import SMTPServer

ADDRESS = "alice@example.com"
CLAIM_ALL = """
import sys, time
from pwreset import create_app
from pwreset import outbox
with create_app().app_context():
    time.sleep(max(0, float(sys.argv[1]) - time.time()))
    while row := outbox.claim():
        print(row.id)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_of_eight_simultaneous_posts_with_one_link_exactly_one_sets_its_password(
    make_app: MakeApp, instance: Instance, serve: Serve, attempt: int
):
    add_user(make_app(), ADDRESS, PASSWORD)
    with SMTPServer() as mail_server:
        server = serve(Gunicorn, EMAIL_PORT=mail_server.port, WEB_CONCURRENCY=2, LOGIN_FREE_FAILURES=8)
        Browser(server).submit("/password-reset/", email=ADDRESS)
        (mail,) = mail_server.wait_for(1, timeout=PATIENCE)
        link = path_of(link_in(mail.message))
        passwords = [f"number {n} of eight good passwords" for n in range(8)]
        start = Barrier(8)

        def choose(password: str) -> Page:
            browser = Browser(server)
            form = browser.get(link)
            start.wait()
            return browser.fill_in(form, new_password1=password, new_password2=password)

        with ThreadPoolExecutor(8) as eight:
            answers = list(eight.map(choose, passwords))
        won = [answer.status == 302 for answer in answers]
        assert won.count(True) == 1
        assert all("This link is no longer valid." in answer.text for answer in answers if answer.status != 302)
        logins = [Browser(server).submit("/login/", email=ADDRESS, password=password) for password in passwords]
        assert [login.status == 302 for login in logins] == won
        instance.wait_until_all_is_sent()


def test_of_two_hundred_rows_four_processes_claim_each_once(make_app: MakeApp, instance: Instance):
    app = make_app()
    with app.app_context():
        for number in range(200):
            outbox.enqueue("register", f"number{number}@example.com", RequestInfo())
        db.session.commit()
    start = time.time() + 4  # when all four have been loaded
    with ThreadPoolExecutor(4) as four:
        done = list(four.map(lambda _: instance.run("-c", CLAIM_ALL, str(start)), range(4)))
    assert [process.stderr for process in done] == [""] * 4
    shares = [process.stdout.split() for process in done]
    assert sorted(map(int, chain(*shares))) == list(range(1, 201))
    assert sum(bool(share) for share in shares) > 1, "one process did it all: nothing was tried"
