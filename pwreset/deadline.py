"""Answers that must come in time, whatever they wait for.

Decides how that is done: a thread asks and is left behind, since no timeout of a socket covers a name server, an answer
in drops, or a server that is frozen with its connections open. Who calls must see to it that few are left behind.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, question: Callable[[], T]) -> T:
    """Return what a question answers, or raise what it raises.

    Args:
        seconds: how long to wait.
        question: is asked in a thread of its own, to its end, however long that takes.

    Raises:
        TimeoutError: where no answer came in time.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 (it is raised again where the answer is awaited)
            answer.set_exception(error)

    threading.Thread(target=ask, name="asking", daemon=True).start()
    return answer.result(seconds)
