"""A mail server's reply is late, missing or forged: at most one more copy is sent."""

import pytest

from tests.support.clock import PATIENCE, until
from tests.support.fault_site import NO_EMAIL_IS_SENT, OpenSite
from tests.support.scripted_smtp import CLOSE, SILENT, USUAL, ScriptedServer, drip


@pytest.mark.parametrize(
    ("fault", "behaviour"),
    [
        ("cut between the final dot and 250", CLOSE),
        ("silent after the final dot", SILENT),
        ("one byte a second after the final dot", drip(1.0, endless=True)),
    ],
)
def test_a_lost_acknowledgement_brings_one_more_copy_with_the_same_message_id(
    open_site: OpenSite, mail: ScriptedServer, fault: str, behaviour
) -> None:
    mail.behave({"DOT": [behaviour, behaviour, USUAL]})
    site = open_site(mail, EMAIL_DEADLINE=3.5)  # in the drip this cuts after "250-", which acknowledges nothing
    site.people.request_resets(4, again=2)
    until(lambda: len(site.tables.charged()) == 2, "2 mails whose answer is missing")
    site.repaired()
    site.people.request_resets(1)
    site.settle()
    assert [kept.acknowledged for kept in mail.emails].count(False) == 2
    site.check(fault, "to 2 mails, then all as usual", "the 2 came twice, each time with one Message-ID", copies=2)


@pytest.mark.parametrize(("fault", "behaviour"), [("silent at QUIT", SILENT), ("cut at QUIT", CLOSE)])
def test_a_server_that_fails_at_quit_has_every_email_once(
    open_site: OpenSite, mail: ScriptedServer, fault: str, behaviour
) -> None:
    mail.behave({"QUIT": behaviour})
    site = open_site(mail)
    site.people.request_resets(3, again=2)
    mail.wait_for_stage("QUIT", timeout=PATIENCE)
    site.people.request_resets(2)
    site.settle()
    assert NO_EMAIL_IS_SENT not in site.log()
    site.check(fault, "at every QUIT", "no mail waited, none came twice")


def test_what_is_injected_before_tls_is_ignored_after_it(
    open_site: OpenSite, secure_mail: ScriptedServer, secure
) -> None:
    injected = "220 2.0.0 Ready\r\n250-mail.test\r\n250 AUTH PLAIN\r\n235 2.7.0 Accepted"
    secure_mail.behave({"STARTTLS": injected})
    site = open_site(secure_mail, **secure)
    site.people.request_resets(3, again=2)
    site.settle()
    assert set(secure_mail.in_clear) == {"CONNECT", "EHLO", "STARTTLS", "HANDSHAKE"}
    assert secure_mail.stages.count("AUTH") == secure_mail.stages.count("STARTTLS")
    assert secure_mail.stages.count("EHLO") == 2 * secure_mail.stages.count("STARTTLS")
    site.check(
        "plaintext injected after STARTTLS",
        "answers to EHLO and AUTH in the packet of the 220",
        "they were not heard: EHLO and AUTH were said anew inside TLS, and no mail left in clear",
    )
