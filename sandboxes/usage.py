"""What a process tree uses of memory and CPU, read from outside: the stand-in where no cgroup is writable.

A cgroup stops the page that goes over; this only sees it afterwards, so a burst shorter than the time between
two looks passes. The cheap figure (`statm`) counts a page that forked processes share once for each of them, so
only a tree that it finds too large is measured again by shares (`smaps_rollup`).
"""

import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARES = re.compile(r"^Pss_Anon:\s+(\d+) kB", re.MULTILINE)


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and that have not been collected; none when it has ended."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def tree(pid: int) -> Iterator[int]:
    """`pid` and its descendants. Those that end meanwhile may be missing."""
    yield pid
    for child in children(pid):
        yield from tree(child)


def exceeds(pids: Iterable[int], most: int) -> bool:
    """Whether these processes together hold more than `most` bytes of anonymous memory."""
    pids = list(pids)
    return sum(map(_resident, pids)) > most and sum(map(_shares, pids)) > most


class TreeClock:
    """CPU seconds of a tree of processes; those that have ended count as they were last seen."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def look(self, pids: Iterable[int]) -> None:
        """Take in what these processes have used by now."""
        for pid in pids:
            self._seen[pid] = max(self._seen.get(pid, 0.0), _cpu_s(pid))

    def seconds(self) -> float:
        """Of all that were seen."""
        return sum(self._seen.values())


def kill(pids: Iterable[int]) -> None:
    """End them; those that have ended already are no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _cpu_s(pid: int) -> float:
    """CPU seconds of `pid` with its threads, by the tick; of its first thread, exactly, where that is more."""
    found = 0.0
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found = (int(fields[11]) + int(fields[12])) / _TICKS
        return max(found, int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9)
    return found


def _resident(pid: int) -> int:
    """Bytes of anonymous memory in `pid`; 0 when it has ended."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _shares(pid: int) -> int:
    """The same with each shared page divided by its users, where this process may see that."""
    try:
        found = _SHARES.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return _resident(pid)
    return int(found[1]) * 1024 if found else _resident(pid)
