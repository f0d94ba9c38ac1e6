"""Run a long computation so that Ctrl-C ends it within a second, even in the middle of a kernel."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from eqflow.cli._progress import Silent
from eqflow.cli._shell import Interrupted

Result = TypeVar("Result")
PATIENCE = 0.7  # seconds a computation gets to close its files


def run(work: Callable[[Callable[[Any], None]], Result], display: Silent, parting: Callable[[], None]) -> Result:
    """The result of `work(observer)`, shown while it runs.

    After Ctrl-C or SIGTERM the process says how to go on and exits: by itself once the work has cleaned up, or else
    after a moment, since neither a kernel nor a slow disk can be interrupted. Shards get their names only when they are
    whole, so nothing is lost but the one in hand.

    Args:
        work: calls its argument from time to time with an `eqflow.data.Progress`.
        display: shows it.
        parting: says how to go on.
    """
    cleaned, last = threading.Event(), threading.Lock()

    def leave(exit_code: int) -> None:
        last.acquire()  # never released: whoever comes second waits for the end
        display.close()
        parting()
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: a thread inside a kernel would meet an interpreter that is being taken down.
        os._exit(exit_code)

    def handler(number: int, _frame: object) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_IGN)
        exit_code = 128 + number
        threading.Thread(target=lambda: cleaned.wait(PATIENCE) or leave(exit_code), daemon=True).start()
        raise Interrupted(number)

    try:
        with _signals_to(handler), display:
            return work(display.meter.observe)
    except Interrupted as interrupted:
        cleaned.set()
        leave(interrupted.exit_code)
        raise


@contextmanager
def _signals_to(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Interrupted:
        raise  # the signals stay ignored: the process is about to end
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
