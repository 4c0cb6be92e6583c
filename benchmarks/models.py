"""Tiny models of every family × the checks of `vertigym model check`, as a table for docs/models.md.

    python benchmarks/models.py [--only NAME …] [-o docs/models.md]

Exit 1 where a check ends in anything but right, mended or refused.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
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
SIGNS = {"right": "✓", "mended": "m", "refused": "✗", "skipped": "–"}
HEAD = """\
# Models

`vertigym model check FOLDER` compares every way to compute with a model, before anything is trained; the first step of
every run does the same with its own rows. The model's own forward pass over one sample is right by definition. Nothing
is known of families: what differs is given up where something slower is right (**m**), else the model is refused (**✗**)
in one line, before the first step.

| check | what is compared | bound |
|---|---|---|
| chat template | what is trained of a chat is the answer, up to a token that stops the model | |
| engine | log-probs of its own samples with the model's | 1e-3 nats |
| greedy | greedy decoding with `generate` | ties |
| trainer | log-probs alone, and in rows that samples share, with the model's | 1e-3 nats |
| bfloat16 passes | log-probs with those of float32 passes, on average | 0.05 nats |
| after a step | trainer and engine with the model, once an optimizer step has changed it | 1e-3 nats |
| exported | the model folder loaded again with the model in memory | 1e-3 nats |
| adapters | the same with LoRA on all linear layers | 1e-3 nats |

`python benchmarks/models.py -o docs/models.md` writes this page. It builds tiny models with random weights from the
configs of transformers {version}: they show that a computation is right, not how good a model is.

"""


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
    arguments.out.write_text(text) if arguments.out else print(text)
    return 0


def row(checks: Sequence[ModelCheck]) -> str:
    """A sign a check."""
    verdicts = {check.name: check.verdict for check in checks}
    return " | ".join(SIGNS[verdicts[name]] if name in verdicts else " " for name in CHECKS)


def page(found: dict[str, list[ModelCheck]]) -> str:
    """The whole page."""
    import transformers

    verdicts = [verdict_of(checks) for checks in found.values()]
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("right", "mended", "refused"))
    lines = [f"{len(found)} configurations: {counts}.", "", f"| model | {' | '.join(CHECKS)} |"]
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
    ]
    lines += ["", "## What is given up", ""]
    given_up: dict[str, list[str]] = {}
    for name, checks in found.items():
        for check in checks:
            if check.verdict == "mended" and check.name == "trainer":
                given_up.setdefault(check.detail.split(":")[0], []).append(name)
    lines += [f"- {what}: {', '.join(names)}" for what, names in given_up.items()]
    return HEAD.replace("{version}", transformers.__version__) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
