"""How many decision models as people keep them load, and become environments that pass `env check`.

    python benchmarks/found_models.py ../shared/data/dmn/found [--sample 100] [--show]
    python benchmarks/found_models.py folder/of/models --pattern "*.json"

A file is *not well-formed* where no engine could use it: not XML, nothing to decide in it, a reference to
nothing, a table that its own standard does not allow, a text that is no expression. Of the others each loads
whole, in part (named decisions are lost), or is refused; becomes an environment or *holds nothing to learn*;
and the environment passes its check or not. The table counts the reasons.
"""

import argparse
import random
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from vertigym.core.errors import DataError, InputError
from vertigym.core.types import Split
from vertigym.decisions.formats import read_model
from vertigym.envs.check import check
from vertigym.envs.check.amounts import LEAST_CASES
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.decision.scripts import SANDBOXED

_ILL_FORMED = {
    "not XML": r"not XML",
    "nothing to decide in it": r"no decision in it|no decision has any logic",
    "refers to what is not there": r"is not there",
    "decisions in a circle": r"in a circle",
    "a table that DMN does not allow": (
        r"without an output|has no name|needs output values in order|has no priority|entries for \d|"
        r"over several outputs has no meaning|an input column without an expression"
    ),
    "a text that is no expression": r": not FEEL(?!.*near .[$#])",
}
_FAULTS = {
    "a constant: no input": r"no inputs to vary",
    "a constant: never decides": r"computes no output|can decide no case",
    "a constant: one answer to every case": r"one answer",
    "reads the clock": r"reads the clock",
    "fewer than 6 cases with another answer": r"hardly anything|distinct cases",
    "rules not reached": r"rules are hit",
    "one answer dominates": r"always .* earns",
    "the prompt shows the answer": r"answer stands in",
}
_SIZES: Mapping[Split, int] = {"train": 600, "eval": 120, "test": 200}


def loads(file: Path) -> tuple[str, str]:
    """`whole`, `part`, `refused` or `ill-formed`, and why."""
    try:
        model = read_model(file, SANDBOXED)
    except DataError as error:
        text = str(error).removeprefix(str(file)).lstrip(": ")
        kind = _kind(text, _ILL_FORMED)
        return ("ill-formed", f"{kind}: {text}") if kind else ("refused", text)
    lost = [note for note in model.notes if "cannot be used" in note]
    return ("part", lost[0].removeprefix(str(file)).lstrip(": ")) if lost else ("whole", "")


def environment(file: Path, *, tasks: int = 100) -> tuple[str, str]:
    """`passes`, `fails` (its check) or `no environment`, and why."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "env"
        try:
            made = import_decision(file, "bench/Found-v0", folder, sizes=_SIZES)
        except InputError as error:
            return "no environment", str(error).removeprefix(str(file)).lstrip(": ")
        report = check(str(folder), tasks=tasks)
        faults = [finding.message for finding in report.findings if finding.level == "failure"]
        hardly = "hardly anything to learn: " if sum(made.counts.values()) <= LEAST_CASES else ""
        return ("fails", hardly + "; ".join(faults)) if faults else ("passes", "")


def _kind(text: str, kinds: Mapping[str, str]) -> str:
    return next((name for name, pattern in kinds.items() if re.search(pattern, text)), "")


def main() -> None:
    """Print the figures, and with `--show` why each file that fails does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", default="*.dmn", help="which files of the folder")
    parser.add_argument(
        "--sample", type=int, default=0, help="so many of the files that load become environments"
    )
    parser.add_argument("--show", action="store_true", help="a line for each file")
    options = parser.parse_args()
    files = sorted(options.folder.rglob(options.pattern))
    found = {file: loads(file) for file in files}
    counts = Counter(verdict for verdict, _ in found.values())
    loaded = [file for file, (verdict, _) in found.items() if verdict in ("whole", "part")]
    tried = sorted(random.Random(0).sample(loaded, min(options.sample or len(loaded), len(loaded))))
    reasons = Counter[tuple[str, str]]()
    for file in tried:
        verdict, why = environment(file)
        reasons[verdict, (_kind(why, _FAULTS) or "other") if why else ""] += 1
        found[file] = (verdict, why)
        if options.show:
            print(f"{verdict:14} {file.parent.name}/{file.name[-60:]}: {why[:240]}", flush=True)
    if options.show:
        for file, (verdict, why) in found.items():
            if verdict in ("ill-formed", "refused"):
                print(f"{verdict:14} {file.parent.name}/{file.name[-60:]}: {why[:240]}")
    well = len(files) - counts["ill-formed"]
    print(f"\n{len(files)} files; {counts['ill-formed']} not well-formed")
    print(f"of {well}: {len(loaded)} load ({len(loaded) / well:.1%}), {counts['part']} of them in part\n")
    passing = sum(n for (verdict, _), n in reasons.items() if verdict == "passes")
    empty = sum(n for (_, reason), n in reasons.items() if reason.startswith("a constant"))
    hold = len(tried) - empty
    print(f"{empty} hold nothing to learn; of the other {hold} {passing} pass ({passing / hold:.1%})\n")
    print(f"| of {len(tried)} that load | | files | share |\n|---|---|---|---|")
    for (verdict, reason), number in sorted(
        reasons.items(), key=lambda item: (item[0][0] != "passes", item[0])
    ):
        print(f"| {verdict} | {reason} | {number} | {number / len(tried):.1%} |")


if __name__ == "__main__":
    main()
