"""The visitors of the load test: what each visit does, page by page, and how often it comes.

Each visit uses a new browser (cookies, a client address of its own) and posts forms with the CSRF token of the page. An
unexpected answer ends the visit and counts as an error.
"""

import random
import re
from html import unescape
from itertools import count
from typing import Any
from urllib.parse import urlencode, urlsplit

import gevent
from locust import FastHttpUser, between, task
from locust.exception import RescheduleTask

from benchmarks.load_report import KNOWN_ADDRESS, NOTICE, REGISTRATION, UNKNOWN_ADDRESS, Emails
from benchmarks.load_site import ACCOUNTS, PASSWORD, known_address

NEW_PASSWORD = "quiet rivers under old bridges"
STATIC = tuple(f"/static/{name}" for name in ("pico.min.css", "pwreset.css", "pwreset.js", "favicon.svg"))
TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
EMAIL_PATIENCE = 60.0  # seconds
BROWSERS = count()
KNOWN = count()
FORGETFUL = count()
NEW = count()
UNKNOWN = count()

emails = Emails()
signed_in: list[list[Any]] = []  # the cookies of browsers that never logged out


class Visitor(FastHttpUser):
    """Someone who visits the site again and again, each time with a new browser."""

    network_timeout = connection_timeout = 10.0
    default_headers = {  # noqa: RUF012 (locust reads it once)
        "Connection": "close",  # as nginx does, see deploy/nginx.conf
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    }
    _pause = between(5, 15)

    def on_start(self) -> None:
        """Open the first browser."""
        self._open_browser()

    def wait_time(self) -> float:
        """Open a new browser after a visit, and return the seconds until the next."""
        self._open_browser()
        return float(self._pause())

    def _open_browser(self) -> None:
        number = next(BROWSERS)
        self.client.cookiejar.clear()
        self._address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    @task(30)
    def look_around(self) -> None:
        """Open the first page in a new browser, and then another."""
        self._get("/")
        for path in STATIC:
            self._get(path, "static file")
        self._read()
        self._get("/login/")

    @task(22)
    def reset_known_address(self) -> None:
        """Request a reset of an account, and nothing else."""
        self._request_reset(known_address(next(KNOWN)), KNOWN_ADDRESS)

    @task(15)
    def reset_unknown_address(self) -> None:
        """Request a reset for an address without an account."""
        self._request_reset(f"nobody.{next(UNKNOWN)}@example.net", UNKNOWN_ADDRESS)

    @task(3)
    def reset_twice(self) -> None:
        """Send the form of the "done" page too: the cooldown defers the second row by a minute."""
        address = known_address(next(KNOWN))
        page = self._request_reset(address, KNOWN_ADDRESS)
        location = self._submit(page, "/password-reset/", "reset or register", email=address)
        emails.accept(KNOWN_ADDRESS, address)
        self._get(location)

    @task(3)
    def reset_password(self) -> None:
        """Request a reset, follow the emailed link and choose a password; half of these visitors log in with it."""
        address = f"forgetful.{next(FORGETFUL)}@example.com"
        self._request_reset(address, KNOWN_ADDRESS)
        self._choose_password(address)
        emails.accept(NOTICE, address)
        if random.random() < 0.5:
            self._log_in(address, NEW_PASSWORD)

    @task(8)
    def register(self) -> None:
        """Request an account; one in five visitors completes it."""
        address = f"new.{next(NEW)}@example.com"
        location = self._submit(self._get("/register/"), "/register/", "reset or register", email=address)
        emails.accept(REGISTRATION, address)
        self._get(location)
        if random.random() < 0.2:
            self._choose_password(address)

    @task(4)
    def visit_account(self) -> None:
        """Log in and open the account; half of these visitors log out."""
        self._log_in(f"member.{random.randrange(ACCOUNTS['member'])}@example.com", PASSWORD)
        if random.random() < 0.5:
            signed_in.append(list(self.client.cookiejar))
            return
        self._read()
        self._submit(self._get("/logout/"), "/logout/", "logout")

    @task(2)
    def mistype_password(self) -> None:
        """Fail to log in."""
        address = f"member.{random.randrange(ACCOUNTS['member'])}@example.com"
        self._submit(self._get("/login/"), "/login/", "login", 200, email=address, password="not what it was")

    @task(13)
    def return_signed_in(self) -> None:
        """Open the account in a browser that is still signed in."""
        if not signed_in:
            self.look_around()
            return
        for cookie in random.choice(signed_in):
            self.client.cookiejar.set_cookie(cookie)
        self._get("/account/")

    def _request_reset(self, address: str, what: str) -> str:
        page = self._get("/password-reset/")
        location = self._submit(page, "/password-reset/", "reset or register", email=address)
        emails.accept(what, address)
        return self._get(location)

    def _choose_password(self, address: str) -> None:
        with gevent.Timeout(EMAIL_PATIENCE, TimeoutError("no email")):
            while address not in emails.links:
                gevent.sleep(0.1)
        self._read()
        path = self._send("GET", emails.links[address], "emailed link", 302).headers["Location"]
        fields = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        self._get(self._submit(self._get(path), path, "new password", **fields))

    def _log_in(self, address: str, password: str) -> None:
        page = self._get("/login/")
        self._get(self._submit(page, "/login/", "login", email=address, password=password))

    def _get(self, path: str, kind: str = "page") -> str:
        return str(self._send("GET", path, kind, 200).text)

    def _submit(self, page: str, path: str, kind: str, status: int = 302, **fields: str) -> str:
        """Send the form of a page after a while of typing, and return where the answer leads."""
        token = TOKEN.search(page)
        fields["csrf_token"] = unescape(token[1]) if token else ""
        self._read()
        return str(self._send("POST", path, kind, status, urlencode(fields)).headers.get("Location", ""))

    def _read(self) -> None:
        """Read and type; people take longer, which costs the server nothing."""
        gevent.sleep(random.uniform(0.2, 1.0))

    def _send(self, method: str, url: str, kind: str, status: int, form: str = "") -> Any:
        headers = {"X-Forwarded-For": self._address, "Content-Type": "application/x-www-form-urlencoded"}
        with self.client.request(
            method, urlsplit(url).path, kind, form, catch_response=True, headers=headers, allow_redirects=False
        ) as response:
            if response.status_code == status:
                response.success()
                return response
            response.failure(f"status {response.status_code} instead of {status}")
        raise RescheduleTask
