"""`vertigym env new`: an installable package with one environment, its data and a test, to build on.

acme-ticket-desk/
  pyproject.toml                    the entry point that registers the environment
  acme_ticket_desk/__init__.py      the environment, in a dozen lines
  acme_ticket_desk/data/*.jsonl     its tasks, by split
  tests/test_environment.py         runs the check
  train.toml                        trains a tiny model on it
  README.md
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vertigym import __version__
from vertigym.core.errors import InputError
from vertigym.core.files import whole_folder, write_jsonl, write_text
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Split

_NAME = re.compile(
    r"(?:(?P<namespace>[A-Za-z][\w-]*)/)?(?P<name>[A-Za-z][\w-]*?)(?:-v(?P<version>\d+))?", re.ASCII
)

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "0.1.0"
description = "{description}"
requires-python = ">=3.11"
dependencies = [{dependencies}]
{entry_point}
[tool.setuptools]
packages = ["{module}"]

[tool.setuptools.package-data]
{module} = ["{data}"]
"""

OWN = f"vertigym>={__version__}"  # what a package that needs vertigym requires
_ENTRY_POINT = """
# Installing the package registers the environment under this name.
[project.entry-points."vertigym.environments"]
"{id}" = "{module}"
"""

_MODULE = '''\
"""{id}: a customer's message in, the desk that handles it out."""

from pathlib import Path

from vertigym.envs import SingleTurnEnv, TaskSet
from vertigym.rewards.rubric import Rubric
from vertigym.rewards.text import exact

DATA = Path(__file__).parent / "data"


def load_environment() -> SingleTurnEnv:
    """The tasks, the verifier, and what the model is told."""
    tasks = TaskSet.read(*sorted(DATA.glob("*.jsonl")))
    return SingleTurnEnv(tasks, Rubric(exact()), system="Answer with the name of the desk.")
'''

_TEST = '''\
"""The environment is sound: references score 1, answers without content nothing, nothing leaks."""

from vertigym.envs.check import check


def test_the_check_passes() -> None:
    report = check("{id}")
    assert report.passed(strict=True), report.findings
'''

_TRAIN = """\
# vertigym train train.toml        (a tiny model from scratch; name a model's folder to train a real one)
name = "{distribution}"
env = "{id}"
model = "tiny"
algorithm = "grpo"
steps = 20
threads = 1

[rollout]
tasks = 16
group_size = 8
max_tokens = 4

[optimizer]
lr = 2e-4
"""

_README = """\
# {id}

A customer's message in, the desk that handles it out. Made by `vertigym env new`; make it your own:

1. put your tasks into `{module}/data/train.jsonl`, `eval.jsonl` and `test.jsonl`, one a line:
   `{{"id": "…", "prompt": "…", "answer": "…", "split": "train"}}`;
2. choose the verifier in `{module}/__init__.py` (`exact`, `numeric`, `choice`, `math_equal`, or your own
   function of `completion` and `answer`);
3. check it, then train:

```
pip install -e .
vertigym env check {id}
vertigym train train.toml
```
"""

# The example's data: who handles what, and how customers say it.
_DESKS = {
    "billing": (
        "charged twice for",
        "sent no invoice for",
        "given the wrong price for",
        "refused a refund for",
    ),
    "delivery": ("still waiting for", "told the wrong address for", "never handed", "given a broken box with"),
    "repairs": (
        "left without a spare part for",
        "unable to switch on",
        "unable to charge",
        "hearing noise from",
    ),
}
_THINGS = (
    "my phone", "my lamp", "my printer", "the kettle", "a radio", "the heater", "my camera", "the fan",
    "my clock", "a toaster", "the screen", "my drill",
)  # fmt: skip


def new_environment(name: str, parent: Path = Path()) -> Path:
    """Write the package for environment `name` (`acme/TicketDesk-v0`, or just `ticket-desk`) under `parent`,
    whole or not at all; its folder.

    Raises:
        InputError: not a name for an environment, or the folder exists.
    """
    words = _words_of(name)
    folder = parent / words["distribution"]
    if folder.exists():
        raise InputError(f"{folder} exists: choose another name, or remove it")
    description = f"{words['title']}: which desk handles a customer's message."
    with whole_folder(folder) as beside:
        module = beside / words["module"]
        write_text(
            beside / "pyproject.toml", package_metadata(words, description, "data/*.jsonl", _ENTRY_POINT, OWN)
        )
        write_text(beside / "README.md", _README.format(**words))
        write_text(beside / "train.toml", _TRAIN.format(**words))
        write_text(beside / "tests" / "test_environment.py", _TEST.format(**words))
        write_text(module / "__init__.py", _MODULE.format(**words))
        for split in SPLITS:
            write_jsonl(module / "data" / f"{split}.jsonl", _rows(split))
    return folder


def package_metadata(
    words: Mapping[str, str], description: str, data: str, entry_point: str, *requirements: str
) -> str:
    """The `pyproject.toml` of a package with one environment, whose files match `data`."""
    dependencies = ", ".join(f'"{name}"' for name in requirements)
    return _PYPROJECT.format(
        **words,
        description=description,
        data=data,
        dependencies=dependencies,
        entry_point=entry_point.format(**words),
    )


def environment_id(name: str) -> str:
    """The id that `new_environment(name)` registers.

    Raises:
        InputError: not a name for an environment.
    """
    return _words_of(name)["id"]


def _words_of(name: str) -> dict[str, str]:
    """Every form of the name that the templates use."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise InputError(
            f"name {name!r}: use namespace/Name-v0 or a plain name, in letters, digits, '-' and '_'"
        )
    namespace = parts["namespace"] or "local"
    pieces = [piece for piece in re.split(r"[-_]+|(?<=[a-z0-9])(?=[A-Z])", parts["name"]) if piece]
    title = "".join(piece[0].upper() + piece[1:] for piece in pieces)
    distribution = "-".join([namespace, *pieces]).lower().replace("_", "-")
    return {
        "id": f"{namespace}/{title}-v{parts['version'] or 0}",
        "title": title,
        "distribution": distribution,
        "module": distribution.replace("-", "_"),
        "vertigym": __version__,
    }


def _rows(split: Split) -> Iterator[dict[str, str]]:
    """The example's tasks of one split: every way to say it about every thing, cut 8 : 2 : 2."""
    cases = [(desk, how, thing) for desk, ways in _DESKS.items() for how in ways for thing in _THINGS]
    order = generator(0, "example tasks").permutation(len(cases))
    sixth = len(cases) // 6
    start, stop = {"train": (0, -2 * sixth), "eval": (-2 * sixth, -sixth), "test": (-sixth, None)}[split]
    for number in order[start:stop]:
        desk, how, thing = cases[number]
        yield {
            "id": f"message-{number}",
            "prompt": f"A customer writes: I am {how} {thing}.",
            "answer": desk,
            "split": split,
            "cluster": how,
        }
