"""Pages of the site that are made of the code (config keys, commands, the public API) or lie beside `docs/`.

`mkdocs.yml` names this hook. What it makes is written nowhere but into the site.
"""

import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, get_args, get_origin

from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.surface import all_commands, config_models, exports, sections, written  # noqa: E402

DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/OWNER/vertigym/blob/main/"
FRONT = {"README.md": "index.md"} | {
    f"{n.upper()}.md": f"{n}.md" for n in ("changelog", "contributing", "security")
}
FILES = {
    "RunConfig": "A run, `vertigym train RUN.toml`",
    "Suite": "A suite, `vertigym eval SUITE.toml`",
    "ImportConfig": "An import, `vertigym traces import --config IMPORT.toml`",
}


def on_startup(**_: Any) -> None:
    """Let the package's own modules, and nothing else that lies in its folder (an environment of Python's),
    stand where the reference looks for them."""
    place = ROOT / ".cache" / "reference" / "vertigym"
    place.mkdir(parents=True, exist_ok=True)
    for path in ROOT.iterdir():
        ours = path.suffix == ".py" or (path / "__init__.py").is_file() or path.name == "kernels"
        if ours and not (place / path.name).is_symlink():
            (place / path.name).symlink_to(path)


def on_files(files: Files, config: Any) -> Files:
    """Add what is made."""
    made = {page: (ROOT / name).read_text() for name, page in FRONT.items()}
    made |= {"reference/configs.md": "".join(configs()), "reference/commands.md": "".join(commands())}
    for name, text in (made | {"reference/python.md": "".join(api())}).items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to what lies beside `docs/` to its page, or to the repository."""
    base = ROOT if page.file.src_uri in FRONT.values() else DOCS

    def lead(match: re.Match[str]) -> str:
        file = (base / match[1]).resolve()
        if file.is_relative_to(DOCS):
            return f"]({file.relative_to(DOCS)}{match[2]}"
        name = file.relative_to(ROOT).as_posix()
        return f"]({FRONT.get(name) or REPOSITORY + name}{match[2]}"

    return re.sub(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*\)|\))", lead, markdown)


def configs() -> Iterator[str]:
    """The keys of every file."""
    yield "# Config keys\n\nA key that is not here is refused, with the nearest one that is.\n"
    for name, model in config_models().items():
        kinds = get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ("",)
        yield f"\n## {FILES.get(name) or f'An `env.toml` of kind `{kinds[0]}`'}\n\n"
        yield from keys(model)


def keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The keys of a table, then those of the tables in it."""
    yield f"{prose(model)}\n\n| key | default | |\n|---|---|---|\n"
    below = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        below += [(f"{path}.{key}".strip("."), table) for table in sections(field.annotation)]
        yield f"| `{key}` | {default(field)} | {cell(meaning(field))} |\n"
    for where, table in below:
        yield f"\n### `[{where}]`\n\n"
        yield from keys(table, where)


def meaning(field: FieldInfo) -> str:
    """What a key says: its description, the first paragraph of its table, or its only value."""
    table = next(sections(field.annotation), None)
    text = field.description or (prose(table).partition("\n\n")[0] if table else "")
    values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    listed = ", ".join(f"`{value}`" for value in values)
    return f"{text} ({listed})" if text and listed else text or listed


def prose(thing: Any) -> str:
    """Its docstring without what it raises."""
    return inspect.cleandoc(thing.__doc__ or "").partition("\n\nRaises:")[0]


def default(field: FieldInfo) -> str:
    """As TOML has it; nothing for a table or for None."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return ""
    if value in ("", (), {}):
        return "none"
    value = list(value) if isinstance(value, tuple) else value
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cell(text: str) -> str:
    """On one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def commands() -> Iterator[str]:
    """What `--help` says of every command."""
    yield "# Commands\n\nExit codes: 0 passed, 1 the verdict is no, 2 it could not run, 70 a fault of ours.\n"
    for words, command in all_commands():
        yield f"\n## `{words}`\n\n{inspect.cleandoc(command.help or '')}\n\n| | |\n|---|---|\n"
        for parameter in command.params:
            yield f"| `{written(parameter)}` | {cell(getattr(parameter, 'help', None) or '')} |\n"


def api() -> Iterator[str]:
    """What each package exports: functions and classes in full, other types by name."""
    rooms: dict[str, list[str]] = defaultdict(list)
    for name in exports():
        rooms[name.rpartition(".")[0]].append(name)
    yield "# Python\n\nWhat a package exports; the rest of the code may change without notice.\n"
    for room, names in rooms.items():
        found = {name: resolve_name(name) for name in names if "__" not in name}
        made = {name: value for name, value in found.items() if is_ours(value)}
        yield f"\n## {room}\n\n"
        yield "".join(f"::: {value.__module__}.{value.__qualname__}\n\n" for value in made.values())
        yield "Types: " * bool(found.keys() - made) + ", ".join(
            f"`{name}`" for name in found if name not in made
        )


def is_ours(value: Any) -> bool:
    """Whether it is a class or a function of the package."""
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("vertigym")
