"""How a command ends: an exit code, and at most one line on stderr.

    0     it passed
    1     the work ran, and the verdict is *no*
    2     it could not run: what the user gave, or the machine (a full disk, a path that cannot be written)
    70    a fault of ours (`EX_SOFTWARE` of BSD's sysexits.h); the traceback is in a file that the line names
    130   interrupted; 141 where whoever read the output has gone

The one idea: whose fault an unforeseen error is can be seen in its traceback. Where the innermost code that
belongs to no library is the user's own (an environment's module, a reward function), it is the user's.
"""

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import typer

from vertigym import __version__
from vertigym.core.errors import VertigymError
from vertigym.core.files import is_disk_full

UNUSABLE, FAULT, INTERRUPTED, UNREAD = 2, 70, 130, 141
UsageError = typer.BadParameter.__base__  # of the copy of click that typer carries
_LIBRARY = Path(os.__file__).parent
_RESUMABLE = {"train": " what was finished is kept: go on with --resume", "eval": " with -o, --resume goes on"}


def run(app: Callable[..., Any]) -> int:
    """Call a typer application with this process's arguments; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # half a surrogate pair in a model's text is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="vertigym", standalone_mode=False)
    except VertigymError as error:
        return _say(str(error))
    except KeyboardInterrupt:  # the second one; typer makes a code of the first
        code = INTERRUPTED
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            return UNREAD
        if _users_place(end.__traceback__):  # no module of a user says how a command ends
            return _of_error(end)
        return int(end.code or 0)  # of a rank that has said what there is to say
    except typer.Abort as error:  # what typer makes of an end of the input
        return _of_error(error.__cause__ or error.__context__ or error)
    except BaseException as error:  # what is no Exception must not end in a bare traceback, either
        return _of_error(error)
    if code == INTERRUPTED:
        return _say(f"interrupted;{_RESUMABLE.get(sys.argv[1], ' nothing was written')}", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _of_error(error: BaseException) -> int:
    if isinstance(error, UsageError):  # type: ignore[arg-type]
        return _of_usage(error)
    if is_disk_full(error):
        return _say(f"the disk is full ({type(error).__name__}): make room and start it again")
    if isinstance(error, OSError):
        return _say(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _say("out of memory: use smaller batches, a smaller model, or a machine with more")
    if isinstance(error, SyntaxError):  # ours was compiled when it was installed
        return _say(f"{error.filename or 'a module of yours'}:{error.lineno or 1}: no Python: {error.msg}")
    kept = _keep_traceback(error)
    about = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if place := _users_place(error.__traceback__):
        return _say(f"your code at {place} raised {about} (traceback: {kept})")
    return _say(f"a fault of vertigym, not yours: {about}; please report it with {kept}", FAULT)


def _of_usage(error: Any) -> int:
    """Wrong words on the command line; no words at all are answered with the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return UNUSABLE
    path = error.ctx.command_path if error.ctx else "vertigym"
    return _say(f"{' '.join(error.format_message().split())} (see {path} --help)")


def _say(line: str, code: int = UNUSABLE) -> int:
    print(f"vertigym: {' '.join(line.splitlines())}", file=sys.stderr)
    return code


def _users_place(trace: TracebackType | None) -> str:
    """`file:line` of the innermost frame that is in no library, where that is not ours either."""
    for frame, line in reversed(list(traceback.walk_tb(trace))):
        if frame.f_globals.get("__name__", "").startswith("vertigym."):
            return ""
        path = Path(frame.f_code.co_filename)
        if path.is_file() and "site-packages" not in path.parts and _LIBRARY not in path.parents:
            return f"{path}:{line}"
    return ""


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback to a file; its name."""
    now = datetime.now(UTC)
    about = f"vertigym {__version__}, Python {platform.python_version()}, {platform.platform()}\n{sys.argv}\n\n"
    text = about + "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"vertigym-{now:%Y%m%d-%H%M%S}-", suffix=".txt", delete=False, errors="backslashreplace"
        ) as file:
            file.write(text)
        return file.name
    except OSError:
        print(text, file=sys.stderr)
        return "the traceback above"
