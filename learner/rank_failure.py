"""How several ranks end when one of them fails: all of them, soon, with one message in all.

The one idea: a rank may be anywhere when another is lost. Where it talks to that one, the connection fails.
Where it does not, torchrun sends it SIGTERM; and where it hangs in a library's wait, in which Python runs no
signal handler, a thread prints the message for it and ends the process.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any

import torch.distributed as dist

from vertigym.core.errors import RunError, VertigymError

_GRACE_S = 10.0  # to report and end, for a rank that failed or was stopped; torchrun kills after 30
_ANSWER_S = 3.0  # for the store to answer what was reported
_LOST = (
    "another rank was lost (its own message, or torchrun's, says why); what was finished is kept: start all of "
    "them again with --resume"
)
_STOPPED = f"told to stop (SIGTERM), as torchrun does when it is stopped itself or {_LOST}"


class _StoppedError(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def fail_together() -> Iterator[None]:
    """An error that all ranks meet inside is raised on one and ends the others with exit code 2, so that it is
    printed once. The process ends soon after an error, whoever catches it: the others wait for that.

    Raises:
        RunError: another rank was lost, or this one was told to stop.
    """
    reporting = threading.Event()
    try:
        with _raising_on_sigterm(reporting):
            yield
    except (Exception, KeyboardInterrupt) as error:
        reporting.set()
        _end_within(_GRACE_S)
        lost, stopped = (
            isinstance(error, RuntimeError) and _is_lost_connection(error),
            isinstance(error, _StoppedError),
        )
        if isinstance(error, VertigymError) and not _is_first_to_report(str(error)):
            raise SystemExit(2) from None
        if (lost or isinstance(error, KeyboardInterrupt)) and not _is_first_to_report("", unless_anything=True):
            raise SystemExit(2) from None
        if lost or stopped:
            raise RunError(_STOPPED if stopped else _LOST) from None
        raise


@contextmanager
def _raising_on_sigterm(reporting: threading.Event) -> Iterator[None]:
    """SIGTERM raises inside. After an error it is ignored: the process ends by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return

    def interrupt(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _StoppedError

    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    threading.Thread(target=_report_for_hanging_thread, args=(woken, reporting), daemon=True).start()
    waker = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, handler)
    signal.set_wakeup_fd(waker)
    os.close(wakes)


def _report_for_hanging_thread(woken: int, reporting: threading.Event) -> None:
    """Wait for SIGTERM, then for the main thread to report it; end the process where it does not."""
    while number := os.read(woken, 1):
        if number[0] != signal.SIGTERM or reporting.wait(_GRACE_S):
            continue
        if _is_first_to_report("", unless_anything=True):
            print(f"vertigym: {_STOPPED}", file=sys.stderr, flush=True)
        os._exit(2)
    os.close(woken)


def _end_within(seconds: float) -> None:
    """End this process even where a thread of it still waits for another rank: that one waits for its end."""
    timer = threading.Timer(seconds, os._exit, (2,))
    timer.daemon = True
    timer.start()


def _is_first_to_report(text: str, *, unless_anything: bool = False) -> bool:
    """Whether no rank has reported this yet (or anything at all); True where the ranks cannot be asked."""
    answer = [True]

    def ask() -> None:
        with suppress(dist.DistError, RuntimeError, ValueError):
            answer[0] = _register_message(text, unless_anything=unless_anything)

    asking = threading.Thread(target=ask, daemon=True)  # the machine that answers may be gone
    asking.start()
    asking.join(_ANSWER_S)
    return answer[0]


def _register_message(text: str, *, unless_anything: bool) -> bool:
    store = dist.distributed_c10d._get_default_store()
    said = store.add("said", 0)
    if unless_anything:
        return said == 0 and store.add("said", 1) == 1
    first = store.add(f"said/{sha256(text.encode()).hexdigest()}", 1) == 1
    store.add("said", 1)
    return first


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective failed for another rank's sake."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
