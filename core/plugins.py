"""Names that installed packages may add to ours, by entry point: kinds of environments, log formats, engines,
sandboxes.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vertigym.core.errors import ConfigError


def plugins(group: str, built_in: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Name -> where it is (`package.module:object`): ours, then what installed packages name in the entry-point
    `group`; they cannot take a name of ours."""
    ours = {name: EntryPoint(name, value, group) for name, value in built_in.items()}
    return {point.name: point for point in entry_points(group=group)} | ours


def find_plugin(name: str, group: str, built_in: Mapping[str, str]) -> EntryPoint | None:
    """What `plugins` has under `name`. One of ours costs no look at what is installed (20 ms)."""
    if name in built_in:
        return EntryPoint(name, built_in[name], group)
    return plugins(group, built_in).get(name)


def load_plugin(point: EntryPoint) -> Any:
    """The object itself.

    Raises:
        ConfigError: the package behind it cannot be imported, or has no such object.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{point.group} {point.name!r} ({point.value}) does not load: {error}") from None
