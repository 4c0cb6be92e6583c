"""How several ranks end when one of them cannot go on: all of them, soon, with one line among them.

The one idea: a rank may be anywhere when another is lost. Where it talks to that one, the connection fails.
Where it does not, it is told by SIGTERM, which torchrun sends to the others; and where it hangs in a library's
wait, in which Python runs no signal handler, a thread says the line for it and ends the process.
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

_GRACE_S = 10.0  # to say something and end, for a rank that failed or was told to; torchrun kills after 30
_ANSWER_S = 3.0  # for the other ranks' machine to say what was said
_LOST = (
    "another rank was lost (its own message, or torchrun's, says why); what was finished is kept: start all of "
    "them again with --resume"
)
_TOLD = f"told to stop (SIGTERM), as torchrun does when it is stopped itself or {_LOST}"


class _ToldToStopError(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def one_voice() -> Iterator[None]:
    """What goes wrong inside on all ranks is raised on one and ends the others with exit code 2, so that it is
    said once. A process ends soon after an error, whoever catches it: the others wait for that.

    Raises:
        RunError: another rank was lost, or this one was told to stop.
    """
    speaking = threading.Event()
    try:
        with _heeding_sigterm(speaking):
            yield
    except (Exception, KeyboardInterrupt) as error:
        speaking.set()
        _end_within(_GRACE_S)
        lost, told = isinstance(error, RuntimeError) and _is_loss(error), isinstance(error, _ToldToStopError)
        if isinstance(error, VertigymError) and not _first_to_say(str(error)):
            raise SystemExit(2) from None
        if (lost or isinstance(error, KeyboardInterrupt)) and not _first_to_say("", unless_anything=True):
            raise SystemExit(2) from None
        if lost or told:
            raise RunError(_TOLD if told else _LOST) from None
        raise


@contextmanager
def _heeding_sigterm(speaking: threading.Event) -> Iterator[None]:
    """SIGTERM interrupts what is done inside. After an error it is ignored: the process ends by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return

    def interrupt(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _ToldToStopError

    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    threading.Thread(target=_speak_for_the_stuck, args=(woken, speaking), daemon=True).start()
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


def _speak_for_the_stuck(woken: int, speaking: threading.Event) -> None:
    """Wait for SIGTERM, then for the main thread to speak; end the process where it does not."""
    while number := os.read(woken, 1):
        if number[0] != signal.SIGTERM or speaking.wait(_GRACE_S):
            continue
        if _first_to_say("", unless_anything=True):
            print(f"vertigym: {_TOLD}", file=sys.stderr, flush=True)
        os._exit(2)
    os.close(woken)


def _end_within(seconds: float) -> None:
    """End this process even where a thread of it still waits for another rank: that one waits for its end."""
    timer = threading.Timer(seconds, os._exit, (2,))
    timer.daemon = True
    timer.start()


def _first_to_say(text: str, *, unless_anything: bool = False) -> bool:
    """Whether no rank has said this yet (or nothing at all); True where the ranks can no longer be asked."""
    answer = [True]

    def ask() -> None:
        with suppress(dist.DistError, RuntimeError, ValueError):
            answer[0] = _note_down(text, unless_anything=unless_anything)

    asking = threading.Thread(target=ask, daemon=True)  # the machine that answers may be gone
    asking.start()
    asking.join(_ANSWER_S)
    return answer[0]


def _note_down(text: str, *, unless_anything: bool) -> bool:
    store = dist.distributed_c10d._get_default_store()
    said = store.add("said", 0)
    if unless_anything:
        return said == 0 and store.add("said", 1) == 1
    first = store.add(f"said/{sha256(text.encode()).hexdigest()}", 1) == 1
    store.add("said", 1)
    return first


def _is_loss(error: RuntimeError) -> bool:
    """Whether a collective failed for another rank's sake."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
