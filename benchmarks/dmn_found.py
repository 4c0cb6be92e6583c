"""How many DMN files as people keep them load, and become environments that pass `env check`.

    python benchmarks/dmn_found.py ../shared/data/dmn/found [--check] [--sample 40]

A file is *not well-formed* where no engine could use it: not XML, nothing to decide in it, a reference to
nothing, a table that its own standard does not allow, a text that is no expression. Of the others each loads
whole, in part (named decisions are lost), or is refused, with the construct named.
"""

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path

from vertigym.core.errors import DataError, InputError
from vertigym.decisions.dmn.dmn_model import DmnModel
from vertigym.envs.check import check
from vertigym.envs.decision.importer import import_decision

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
_SIZES = {"train": 600, "eval": 120, "test": 200}


def verdict(file: Path) -> tuple[str, str]:
    """`whole`, `part`, `refused` or `ill-formed`, and why."""
    try:
        model = DmnModel(file)
    except DataError as error:
        text = str(error).removeprefix(str(file)).lstrip(": ")
        kind = next((name for name, pattern in _ILL_FORMED.items() if re.search(pattern, text)), "")
        return ("ill-formed", f"{kind}: {text}") if kind else ("refused", text)
    lost = next(iter(model.lost.values()), "")
    return ("part", lost.removeprefix(str(file)).lstrip(": ")) if lost else ("whole", "")


def environment(file: Path, *, tasks: int = 100) -> str:
    """Why a file makes no environment that passes its check; empty where it does."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "env"
        try:
            import_decision(file, "bench/Found-v0", folder, sizes=_SIZES)  # type: ignore[arg-type]
            report = check(str(folder), tasks=tasks)
        except InputError as error:
            return str(error).removeprefix(str(file)).lstrip(": ")
        faults = [finding.message for finding in report.findings if finding.level == "failure"]
        return "" if report.passed(strict=False) else "; ".join(faults)[:300]


def main() -> None:
    """Print the figures, and why each file that fails does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="make environments, too")
    parser.add_argument("--sample", type=int, default=0, help="only every so many files that load")
    options = parser.parse_args()
    counts, passed, made = Counter[str](), 0, 0
    for place, file in enumerate(sorted(options.folder.rglob("*.dmn"))):
        found, why = verdict(file)
        counts[found] += 1
        if why:
            print(f"{found:10} {file.parent.name}/{file.name[-60:]}: {why[:200]}", flush=True)
        if options.check and found in ("whole", "part") and not (options.sample and place % options.sample):
            fault = environment(file)
            made, passed = made + 1, passed + (not fault)
            if fault:
                print(f"no env     {file.parent.name}/{file.name[-60:]}: {fault[:200]}", flush=True)
    loaded, well = counts["whole"] + counts["part"], sum(counts.values()) - counts["ill-formed"]
    print(f"\n{sum(counts.values())} files; {counts['ill-formed']} not well-formed")
    print(f"of {well}: {loaded} load ({loaded / well:.1%}), {counts['part']} of them in part")
    if made:
        print(f"of {made} that load: {passed} become environments that pass ({passed / made:.1%})")


if __name__ == "__main__":
    main()
