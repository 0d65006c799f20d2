"""gunicorn with another configuration file serves, but no worker runs, and the log says so."""

import json

from pwreset.monitoring.queue_status import STALLED_MESSAGE
from tests.support.clock import until
from tests.support.instance import OBSERVER, STARTED, Instance, Serve
from tests.support.servers import Browser, Gunicorn
from tests.support.smtp import SMTPServer

REPORT_THE_TIMER = """
start_timer = threading.Timer.start
def observed_timer(self):
    if getattr(self.function, "__qualname__", "") == "StallMonitor._check":
        print("timer set", flush=True)
    start_timer(self)
threading.Timer.start = observed_timer
"""
FOREIGN = ("-c", "/dev/null", "--workers", "1", "wsgi:app")


def a_minute_passes(instance: Instance) -> None:
    """Let what waits have been asked for two minutes ago; each engine has its own words for that."""
    for sql in (
        "UPDATE outbox SET run_after = datetime(run_after, '-2 minutes')",
        "UPDATE outbox SET run_after = run_after - interval '2 minutes'",
    ):
        if ("interval" in sql) == (type(instance.database).__name__ != "SQLite"):
            instance.query(sql)


def health(server: Gunicorn) -> tuple[int, dict[str, str]]:
    page = Browser(server).get("/healthz")
    return page.status, json.loads(page.text)


def test_healthz_and_the_log_report_stalled_email_until_a_worker_runs(instance: Instance, serve: Serve, observer):
    with SMTPServer() as mail_server:
        relay = {"EMAIL_PORT": mail_server.port, "PYTHONPATH": observer}
        (observer / "sitecustomize.py").write_text(OBSERVER + REPORT_THE_TIMER, encoding="utf-8")
        server = serve(Gunicorn, *FOREIGN, **relay)
        assert "timer set" not in server.log()
        assert Browser(server).submit("/register/", email="new@example.com").status == 302
        assert STARTED not in server.log()
        until(lambda: "timer set" in server.log(), "the timer that logs it without a request for /healthz")
        assert health(server) == (200, {"status": "ok"})
        a_minute_passes(instance)
        assert health(server) == (200, {"status": "mail is not delivered"})
        assert server.log().count(STALLED_MESSAGE) == 1
        serve(Gunicorn, visit=False, **relay)  # as it should be
        mail_server.wait_for(1, timeout=30)
        instance.wait_until_all_is_sent()
        until(lambda: health(server) == (200, {"status": "ok"}), "a healthy site")
        assert server.log().count(STALLED_MESSAGE) == 1
