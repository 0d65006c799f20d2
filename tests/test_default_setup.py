"""With default settings nothing is imported that only several machines need."""

import subprocess
import sys
from pathlib import Path

from tests.support.servers import ROOT, environment, run

VISIT = """
import re, sys
from flask_migrate import upgrade
from pwreset import create_app
from pwreset.outbox.delivery import deliver_pending

app = create_app()
with app.app_context():
    upgrade()
client = app.test_client()
for path in ("/register/", "/login/", "/password-reset/"):
    token = re.search('name="csrf_token"[^>]*value="([^"]+)"', client.get(path).text)[1]
    fields = {"csrf_token": token, "email": "new@example.com", "password": "seven green lanterns drift"}
    print(path, client.post(path, data=fields).status_code)
print("/healthz", client.get("/healthz").status_code)
with app.app_context():
    print("delivered", deliver_pending())
print("imported", {name.partition(".")[0] for name in sys.modules} & {SCALE})
"""
SCALE = {"psycopg", "redis", "celery", "kombu", "amqp", "billiard", "vine"}


def test_what_only_several_machines_need_is_not_imported(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", VISIT.replace("{SCALE}", repr(SCALE)))
    assert [line for line in done.stdout.splitlines() if not line.startswith("Upgraded to ")] == [
        "/register/ 302",
        "/login/ 200",
        "/password-reset/ 302",
        "/healthz 200",
        "delivered (2, None)",
        "imported set()",
    ], done.stderr


def test_what_only_several_machines_need_is_not_in_requirements_txt() -> None:
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
    assert [name for name in SCALE if name in listed] == []


def test_the_check_above_can_fail(tmp_path: Path) -> None:
    code = "import sys, redis; print('redis' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
