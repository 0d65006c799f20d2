"""A mail server accepts no email at all: the rows wait without a charge and are sent when it is back."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.clock import PATIENCE
from tests.support.fault_site import NO_EMAIL_IS_SENT, FaultSite, OpenSite
from tests.support.scripted_smtp import RST, SILENT, ScriptedServer, drip
from tests.support.servers import FlaskRun, Gunicorn, OutboxRun

WAITED = "all mail waited, uncharged, and went out by itself"
BEFORE_TLS = {"CONNECT", "EHLO", "STARTTLS", "HANDSHAKE", "QUIT"}
SILENCES = {
    "CONNECT": "after accept",
    "EHLO": "at EHLO",
    "STARTTLS": "at STARTTLS",
    "HANDSHAKE": "in the TLS handshake",
    "AUTH": "at AUTH",
    "MAIL": "at MAIL FROM",
}


@contextmanager
def outage(site: FaultSite) -> Iterator[str]:
    """Let visitors send requests during an outage; the block inspects and repairs it; then everything must recover.

    Yields:
        The reason that the log gives.
    """
    kept = sum(mail.kept for mail in site.mail.emails)
    site.people.request_resets(2, again=2)
    reason = site.wait_until_no_email_is_sent()
    site.people.request_resets(2)
    assert sum(mail.kept for mail in site.mail.emails) == kept
    assert not any(row.attempts or row.failed_at for row in site.tables.rows())
    yield reason
    site.repaired()
    site.people.request_resets(1)
    site.settle()
    assert site.log().count(NO_EMAIL_IS_SENT) <= sum(map(len, site.servers.values())), (
        "a process logged several warnings"
    )


def test_a_closed_port_holds_all_email_back_until_it_opens(open_site: OpenSite, mail: ScriptedServer) -> None:
    site = open_site(mail)
    site.people.request_resets(1)
    site.settle()
    mail.go_down()
    with site.people.requesting_resets(), outage(site) as reason:
        assert "refused the connection" in reason
        mail.restart()
    site.settle()
    site.check("down", "port closed, then opened", WAITED)


def test_a_connection_that_is_reset_at_once_delays_the_email(open_site: OpenSite, mail: ScriptedServer) -> None:
    mail.behave({"CONNECT": RST})
    site = open_site(mail, (FlaskRun,))
    with outage(site) as reason:
        assert "closed the connection" in reason
        mail.behave()
    site.check("refused", "RST to every connection, then none", WAITED)


def test_a_name_that_does_not_resolve_delays_the_email_until_it_does(
    open_site: OpenSite, mail: ScriptedServer, tmp_path: Path
) -> None:
    name, hosts = "no-such-host.invalid", tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    site = open_site(mail, (), EMAIL_HOST=name, EMAIL_USE_TLS="false", RES_OPTIONS="timeout:1 attempts:1")
    site.start(Gunicorn, prefix=with_hosts(hosts))
    with outage(site) as reason:
        assert "name was not found" in reason
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {name}\n")
    site.check("name does not resolve", "EMAIL_HOST unknown, then a line in /etc/hosts of the processes", WAITED)


def with_hosts(hosts: Path) -> list[str]:
    """Return a command that runs another with a file in the place of /etc/hosts, for that one alone."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    prefix = [*unshare, "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process here may have an /etc/hosts of its own (unshare)")
    return prefix


@pytest.mark.parametrize("stage", SILENCES)
def test_a_server_that_falls_silent_delays_the_email(
    open_site: OpenSite, secure_mail: ScriptedServer, secure, stage: str
) -> None:
    secure_mail.behave({stage: SILENT})
    site = open_site(secure_mail, **secure)
    with outage(site) as reason:
        assert "did not answer in time" in reason
        secure_mail.behave()
    site.check(f"silent {SILENCES[stage]}", "not a word more, then all as usual", f"abandoned after 2 s; {WAITED}")


def test_a_server_that_sends_a_byte_a_second_is_left_at_the_deadline(open_site: OpenSite, mail: ScriptedServer) -> None:
    mail.behave({"CONNECT": drip(1.0, endless=True)})
    site = open_site(mail, EMAIL_DEADLINE=3)
    with outage(site) as reason:
        assert "took longer than 3 s" in reason
        mail.behave()
    site.check("one byte a second", "an endless greeting, then a usual one", f"cut at the deadline of 3 s; {WAITED}")


@pytest.mark.parametrize(
    ("fault", "stage", "reply"),
    [("421 at connect", "CONNECT", "421 4.3.2 Try later"), ("452 at MAIL FROM", "MAIL", "452 4.3.1 No room")],
)
def test_a_server_that_says_later_to_everybody_delays_the_email(
    open_site: OpenSite, mail: ScriptedServer, fault: str, stage: str, reply: str
) -> None:
    mail.behave({stage: reply})
    site = open_site(mail)
    with outage(site) as reason:
        assert f"({reply[:3]})" in reason
        mail.behave()
    site.check(fault, f"`{reply}` to all, then all as usual", WAITED)


def test_a_refused_login_holds_all_email_back_with_one_warning_until_it_is_repaired(
    open_site: OpenSite, secure_mail: ScriptedServer, secure
) -> None:
    secure_mail.behave({"AUTH": "535 5.7.8 Username and Password not accepted"})
    site = open_site(secure_mail, (Gunicorn, OutboxRun), OUTBOX_WORKER="none", **secure)
    with outage(site) as reason:
        assert "refused the login (535 5.7.8)" in reason
        secure_mail.wait_for_stage("AUTH", 3, timeout=PATIENCE)
        assert "MAIL" not in secure_mail.stages
        assert site.log().count(NO_EMAIL_IS_SENT) == 1
        secure_mail.behave()
    site.check("535", "login refused, then accepted", f"one warning for 3 tries; {WAITED}")


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [("self_signed", "self-signed certificate"), ("expired", "expired"), ("wrong_host", "Hostname mismatch")],
)
def test_a_certificate_that_proves_nothing_gets_neither_email_nor_login(
    open_site: OpenSite,
    secure_mail: ScriptedServer,
    secure,
    certificates: Authority,
    certificate: str,
    reason: str,
) -> None:
    secure_mail.tls_context = getattr(certificates, certificate)
    site = open_site(secure_mail, **secure)
    with outage(site) as given:
        assert "certificate is not trusted" in given
        assert reason in given
        assert set(secure_mail.stages) <= BEFORE_TLS
        secure_mail.tls_context = certificates.good
    fault = certificate.replace("_", "-") + " certificate"
    site.check(fault, "then a good one", f"nothing sent, not even AUTH; {WAITED}")


def test_a_server_whose_starttls_was_stripped_gets_neither_email_nor_login(
    open_site: OpenSite, secure_mail: ScriptedServer, secure
) -> None:
    secure_mail.behave({"EHLO": "250-scripted.test\r\n250-8BITMIME\r\n250 AUTH PLAIN"})
    site = open_site(secure_mail, **secure)
    with outage(site) as reason:
        assert "offers no STARTTLS" in reason
        assert set(secure_mail.stages) <= BEFORE_TLS
        secure_mail.behave()
    site.check("STARTTLS stripped", "not offered, then offered", f"nothing sent, not even AUTH; {WAITED}")
