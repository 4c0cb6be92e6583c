"""Every exception vertigym raises on purpose, in one tree.

    VertigymError
    ├── InputError                what the user gave cannot be used; the command line exits with 2
    │   ├── ConfigError           a config file, one of its keys, or an override
    │   ├── UnknownNameError      a name that is not registered (suggests near ones)
    │   ├── DataError             a data file that is missing or malformed (names file and line)
    │   ├── OutputError           a place that cannot be written, is in use, or holds something already
    │   └── MissingDependencyError   an optional package that this feature needs
    ├── InfrastructureError       the machine failed, not the policy: retried, then raised; never a score of 0
    │   ├── SandboxError          a sandbox was lost, or the isolation asked for is not available
    │   └── EngineError           a generation engine failed
    └── RunError                  the run cannot go on (too many samples not scored, loss not finite, …)

To add one: subclass the nearest node, give a message that says what came, what is allowed and what to do,
and draw it here. Programming errors stay `ValueError`, `TypeError` and `assert`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class VertigymError(Exception):
    """Root of every deliberate error."""


class InputError(VertigymError):
    """What the user gave cannot be used as it is."""


class ConfigError(InputError):
    """A config file, key, value or override is wrong."""


class UnknownNameError(InputError):
    """A name that nothing is registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.name = name
        said = f"unknown {kind} {name!r}{suggest(name, known)}"
        super().__init__(f"{said}{'' if said.endswith('?') else '.'} {hint}" if hint else said)


class DataError(InputError):
    """A data file is missing, unreadable or malformed."""


class OutputError(InputError):
    """A place that cannot be written, that another process writes to, or that holds something already."""


class MissingDependencyError(InputError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'vertigym[{extra}]'")


class InfrastructureError(VertigymError):
    """The machine failed, not the policy. Retried within bounds, then raised; never scored as 0."""


class SandboxError(InfrastructureError):
    """A sandbox was lost, or cannot give the isolation that was asked for."""


class EngineError(InfrastructureError):
    """A generation engine failed."""


class RunError(VertigymError):
    """A run cannot go on; what it has finished is kept."""


def suggest(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """`; did you mean 'x'?` for near misses, else the allowed names when they are few, else nothing."""
    names = sorted(set(known))
    near = get_close_matches(name, names, n=limit, cutoff=0.6)
    if not near:  # a wrong namespace or version hides the right name from a whole-string comparison
        near = [n for n in names if name.lower() in n.lower() or _stem(name) == _stem(n)][:limit]
    if near:
        return f"; did you mean {' or '.join(repr(n) for n in near)}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _stem(name: str) -> str:
    """`Acme/loan-v2` -> `loan`."""
    return name.rsplit("/", 1)[-1].rsplit("-v", 1)[0].lower()


def some(names: Iterable[str], *, limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
