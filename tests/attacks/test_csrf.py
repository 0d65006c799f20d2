"""A form is accepted only from this site's page in the same browser, and only a POST changes anything."""

from collections.abc import Callable
from functools import cache
from urllib.parse import urlencode

import pytest

from tests.support.databases import on_sqlite
from tests.support.forms import FORMS, Form, confirm, login, logout, password_change, sign_out_everywhere
from tests.support.pages import csrf_token
from tests.support.servers import Page
from tests.support.site import Site

each_form = pytest.mark.parametrize("make", FORMS)


@cache
def waiting(site: Site, make: Callable[[Site], Form]) -> Form:
    """Return a form that nobody sends in earnest, for attacks that must be refused."""
    form = make(site)
    site.wait_until_all_is_sent()
    return form


@on_sqlite  # no database judges where a form is from
@each_form
def test_a_form_of_this_site_does_what_it_is_for(site: Site, make: Callable[[Site], Form]):
    """What the next tests send would change something, but for the one thing that each of them says."""
    form = make(site)
    site.wait_until_all_is_sent()
    before = form.state()
    assert form.send(form.token, {"Origin": site.url}).status == 302
    site.wait_until_all_is_sent()
    assert form.state() != before


def no_token(form: Form) -> Page:
    return form.send(None)


def empty_token(form: Form) -> Page:
    return form.send("")


def invented_token(form: Form) -> Page:
    return form.send("IjAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAi.aaaaaa." + "A" * 27)


def token_of_another_session(form: Form) -> Page:
    return form.send(csrf_token(form.person.site.person().get("/login/")))


def changed_token(form: Form) -> Page:
    return form.send(form.token[:-5] + ("A" if form.token[-5] != "A" else "B") + form.token[-4:])


def token_in_the_query(form: Form) -> Page:
    return form.person.post(f"{form.path}?{urlencode({'csrf_token': form.token})}", form.fields)


def token_in_a_cookie(form: Form) -> Page:
    (session,) = form.person.cookies().items()
    return form.send(None, {"Cookie": "; ".join(["=".join(session), f"csrf_token={form.token}"])})


def token_without_its_session(form: Form) -> Page:
    return form.send(form.token, {"Cookie": "nothing=here"})


def as_plain_text(form: Form) -> Page:
    body = urlencode({**form.fields, "csrf_token": form.token}).encode()
    return form.person.send("POST", form.path, {"Content-Type": "text/plain"}, body)


FORGERIES = [
    no_token,
    empty_token,
    invented_token,
    changed_token,
    token_of_another_session,
    token_in_the_query,
    token_in_a_cookie,
    token_without_its_session,
    as_plain_text,
]


@on_sqlite  # no database judges where a form is from
@each_form
@pytest.mark.parametrize("forge", FORGERIES)
def test_a_form_of_another_site_is_refused(site: Site, make: Callable[[Site], Form], forge: Callable[[Form], Page]):
    """ASVS 3.5.1, 3.5.2: also that of the login, which would put the victim into the attacker's account."""
    form = waiting(site, make)
    before = form.state()
    assert forge(form).status == 400
    assert form.state() == before


ORIGINS = {
    "null": "null",
    "another site": "https://evil.example",
    "another port": "http://127.0.0.1:1",
    "no port": "http://127.0.0.1",
    "another scheme": "https://{host}",
    "a subdomain": "http://evil.{host}",
    "a longer name": "{url}.evil.example",
    "a user": "http://{host}@evil.example",
    "a list": "{url} https://evil.example",
    "a path": "{url}/",
    "another name of this machine": "http://localhost:{port}",
    "nothing": "",
}


@on_sqlite  # no database judges where a form is from
@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
@pytest.mark.parametrize("make", [login, confirm, sign_out_everywhere])
def test_a_form_from_another_origin_is_refused(site: Site, make: Callable[[Site], Form], origin: str):
    """ASVS 3.5.1: even with a good token; scheme, host and port count, and `null` is nobody's own."""
    form = waiting(site, make)
    before = form.state()
    host = site.url.removeprefix("http://")
    sent = origin.format(url=site.url, host=host, port=site.server.port)
    assert form.send(form.token, {"Origin": sent}).status == 400
    assert form.state() == before


@on_sqlite  # no database judges where a form is from
@each_form
def test_no_form_is_taken_from_another_origin(site: Site, make: Callable[[Site], Form]):
    """ASVS 3.5.1."""
    form = waiting(site, make)
    before = form.state()
    assert form.send(form.token, {"Origin": "https://evil.example"}).status == 400
    assert form.state() == before


OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]


@on_sqlite  # no database judges a method
@each_form
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "post"])
def test_only_a_post_changes_anything(site: Site, make: Callable[[Site], Form], method: str):
    """ASVS 3.5.3: with all that the form would send, in query and body, and a wish for another method."""
    form = waiting(site, make)
    before = form.state()
    sent = urlencode({**form.fields, "csrf_token": form.token, "_method": "POST"})
    headers = dict.fromkeys(OVERRIDES, "POST") | {"Content-Type": "application/x-www-form-urlencoded"}
    answer = form.person.send(method, f"{form.path}?{sent}", headers, sent.encode())
    assert answer.status in {200, 302, 400, 404, 405}
    assert form.state() == before


@on_sqlite  # no database knows of cookies
@pytest.mark.parametrize("make", [logout, sign_out_everywhere, password_change])
def test_a_session_in_the_query_is_none(site: Site, make: Callable[[Site], Form]):
    """ASVS 3.3.4: a session comes in its cookie alone."""
    form = waiting(site, make)
    before = form.state()
    query = urlencode(form.person.cookies())
    stranger = site.person()
    stranger.post(f"{form.path}?{query}", {**form.fields, **form.person.cookies(), "csrf_token": form.token})
    assert form.state() == before
