"""Tiny models of every family × the checks of `vertigym model check`: the table of docs/models.md.

python benchmarks/models.py [--only NAME …] [-o docs/models.md]     writes what follows "## The table" anew
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from transformers.utils import logging

from vertigym.tests.model_families import FAMILIES, build
from vertigym.trainer.model_check import ModelCheck, check_model, verdict_of

CHECKS = (
    "chat template",
    "engine",
    "greedy",
    "trainer",
    "bfloat16 passes",
    "after a step",
    "exported",
    "adapters",
    "trainer, adapters",
    "after a step, adapters",
    "exported, adapters",
)
SIGNS = {"right": "✓", "mended": "m", "refused": "✗", "skipped": "-"}
TABLE = "## The table"


def main() -> int:
    """Check the families; write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(FAMILIES))
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    found: dict[str, list[ModelCheck]] = {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = list(check_model(build(name, Path(folder))))
        print(f"{name:24} {row(found[name])}", file=sys.stderr, flush=True)
    text = page(found)
    if arguments.out:
        above, _, _ = arguments.out.read_text().partition(TABLE)
        text = f"{above}{TABLE}\n\n{text}"
        arguments.out.write_text(text)
    else:
        print(text)
    return 0


def row(checks: Sequence[ModelCheck]) -> str:
    """A sign a check."""
    verdicts = {check.name: check.verdict for check in checks}
    return " | ".join(SIGNS[verdicts[name]] if name in verdicts else " " for name in CHECKS)


def page(found: dict[str, list[ModelCheck]]) -> str:
    """The table, and what is refused or given up."""
    verdicts = [verdict_of(checks) for checks in found.values()]
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("right", "mended", "refused"))
    lines = [
        f"{len(found)} configurations, transformers {transformers.__version__}: {counts}.",
        "",
        f"| model | {' | '.join(CHECKS)} |",
    ]
    lines += [
        "|---|" + "---|" * len(CHECKS),
        *(f"| {name} | {row(checks)} |" for name, checks in found.items()),
    ]
    lines += ["", "## What is refused, and why", ""]
    lines += [
        f"- **{name}**, {check.name}: {check.detail}"
        for name, checks in found.items()
        for check in checks
        if check.verdict == "refused"
    ] or ["Nothing."]
    lines += ["", "## What is given up", ""]
    given_up: dict[str, list[str]] = {}
    for name, checks in found.items():
        for check in checks:
            if check.verdict == "mended" and check.name in ("greedy", "trainer"):
                given_up.setdefault(check.detail.split(":")[0], []).append(name)
    lines += [f"- {what}: {', '.join(names)}" for what, names in given_up.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
