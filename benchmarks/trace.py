"""The files and functions that one reset uses (form, delivery, link, password): `make trace`.

It resets a password in local mode, with the mailbox, and fails if that takes more than BOUND of the project's files.
Templates are counted apart; lambdas and comprehensions belong to the function around them.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from benchmarks.report import ROOT
from benchmarks.stores import application, temporary_folder
from pwreset import accounts
from pwreset.mail.mailbox import kept_emails
from pwreset.outbox.delivery import deliver_pending

BOUND = 24
ADDRESS = "alice@example.com"
OLD_PASSWORD = "seven green lanterns drift"
NEW_PASSWORD = "quiet rivers under old bridges"
IGNORED = {"<module>", "<lambda>", "<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"}
Used = dict[str, set[str]]  # functions by file


def main() -> None:
    """Print every file with its functions, and check the bound."""
    used = trace()
    files = {path: functions for path, functions in used.items() if path.endswith(".py")}
    for path, functions in sorted(used.items()):
        print(f"{path}: {', '.join(sorted(functions))}")
    number = sum(map(len, files.values()))
    print(f"{len(files)} files (at most {BOUND}), {number} functions, {len(used) - len(files)} templates")
    sys.exit(len(files) > BOUND)


def trace() -> Used:
    """Reset a password, and return what it used."""
    used: Used = defaultdict(set)
    with temporary_folder() as folder, application(folder, {}) as app:
        client = app.test_client()
        with app.app_context():
            accounts.create(ADDRESS, OLD_PASSWORD)
        with recording(used):
            _submit(client, client.get("/password-reset/"), email=ADDRESS)
            with app.app_context():
                deliver_pending()
        with app.app_context():
            link = re.search(r"http://\S+(/password-reset-confirm/\S+)", kept_emails()[0].text)
        assert link
        with recording(used):
            form = client.get(link[1], follow_redirects=True)
            answer = _submit(client, form, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)
    assert answer.request.path == "/password-reset-complete/"
    return used


def _submit(client: FlaskClient, page: TestResponse, **fields: str) -> TestResponse:
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert token
    return client.post(page.request.path, data={**fields, "csrf_token": token[1]}, follow_redirects=True)


@contextmanager
def recording(used: Used) -> Iterator[None]:
    """Note the project's functions that this thread calls."""

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and _is_ours(frame.f_code):
            path = os.path.relpath(frame.f_code.co_filename, ROOT)
            used[path].add(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def _is_ours(code: CodeType) -> bool:
    path = code.co_filename
    ours = path.startswith(f"{ROOT}/") and not path.startswith((f"{ROOT}/.venv/", f"{ROOT}/benchmarks/"))
    return ours and code.co_name not in IGNORED


if __name__ == "__main__":
    main()
