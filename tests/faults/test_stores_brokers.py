"""Celery's broker, Redis or RabbitMQ, breaks in every way: tasks are lost, and emails wait and go out without help."""

import time
from collections.abc import Iterator

import pytest

from tests.support.brokers import Broker, BrokerProxy, RabbitMQ, Redis
from tests.support.celery_site import OUTAGE, SOON, CelerySite
from tests.support.clock import until
from tests.support.databases import on_postgresql
from tests.support.fault_site import OpenSite
from tests.support.scripted_smtp import ScriptedServer

# A RabbitMQ on a busy machine takes half a minute to start.
pytestmark = [on_postgresql, pytest.mark.timeout(300)]

NAMES = {Redis: "Redis", RabbitMQ: "RabbitMQ"}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as broker:
        yield broker


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq") / "node") as broker:
        yield broker


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Return a broker that holds nothing."""
    broker: Broker = request.getfixturevalue(request.param)
    broker.forget_everything()
    return broker


def test_a_broker_that_is_down_at_the_start_is_waited_for(
    open_site: OpenSite, mail: ScriptedServer, broker: Broker
) -> None:
    broker.stop()
    celery = CelerySite(open_site, mail, broker.url)
    with celery.site.people.requesting_resets(1):
        until(lambda: "Cannot connect" in celery.worker.log(), "a worker in vain")
        until(lambda: "does not accept the task" in celery.beat.log(), "a beat in vain")
        time.sleep(OUTAGE / 2)
        broker.start()
        celery.site.repaired()
    celery.site.settle(SOON)
    celery.wait_until_emails_are_sent()
    lines = celery.lines()
    celery.check(f"{NAMES[type(broker)]} down at the start", "of worker and beat; then started", lines)


def test_a_broker_that_was_stopped_is_found_again_when_it_is_started(
    open_site: OpenSite, mail: ScriptedServer, broker: Broker
) -> None:
    celery = CelerySite(open_site, mail, broker.url)
    celery.wait_until_emails_are_sent()
    lines = celery.lose_the_broker(broker.stop, broker.start)
    celery.check(f"{NAMES[type(broker)]} stopped", f"killed, and started {OUTAGE} s later, with nothing kept", lines)


def test_a_broker_that_hangs_holds_nobody_for_longer_than_it_hangs(
    open_site: OpenSite, mail: ScriptedServer, broker: Broker
) -> None:
    celery = CelerySite(open_site, mail, broker.url)
    celery.wait_until_emails_are_sent()
    lines = celery.lose_the_broker(broker.freeze, broker.thaw)
    celery.check(f"{NAMES[type(broker)]} hung", f"SIGSTOP, and SIGCONT {OUTAGE} s later", lines)


def test_a_broker_that_forgets_everything_costs_one_task(
    open_site: OpenSite, mail: ScriptedServer, broker: Broker
) -> None:
    celery = CelerySite(open_site, mail, broker.url)
    celery.wait_until_emails_are_sent()
    lines = celery.lose_the_broker(broker.forget_everything, broker.forget_everything)
    done = {Redis: "FLUSHALL, twice", RabbitMQ: "its queue deleted, twice"}[type(broker)]
    celery.check(f"{NAMES[type(broker)]} emptied", done, lines)


def test_a_line_to_the_broker_that_went_dead_without_a_word_is_given_up(
    open_site: OpenSite, mail: ScriptedServer, broker: Broker
) -> None:
    with BrokerProxy(broker) as proxy:
        celery = CelerySite(open_site, mail, proxy.url)
        celery.wait_until_emails_are_sent()
        lines = celery.lose_the_broker(proxy.block, proxy.unblock)
        done = f"nothing passes, and nobody is told; {OUTAGE} s later on new connections alone"
        celery.check(f"connection to {NAMES[type(broker)]} dead", done, lines)


def test_a_broker_that_turns_everybody_away_is_asked_again_until_it_does_not(
    open_site: OpenSite, mail: ScriptedServer, broker: Broker
) -> None:
    celery = CelerySite(open_site, mail, broker.url)
    celery.wait_until_emails_are_sent()
    lines = celery.lose_the_broker(broker.reject_clients, broker.accept_clients)
    done = {Redis: "became a read-only replica, as after a failover", RabbitMQ: "the password changed"}[type(broker)]
    celery.check(f"{NAMES[type(broker)]} turns all away", f"{done}; taken back {OUTAGE} s later", lines)
