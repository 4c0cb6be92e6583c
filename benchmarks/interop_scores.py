"""1,000 recorded episodes of five kinds of environment, and of one whose judge fails, through every export.

    python benchmarks/interop_scores.py [--vf-eval PATH/TO/vf-eval] [--openenv PATH/TO/python]
        [--only openenv,inspect] [--share 1.0]

Each program's own runner plays them where it is installed: Inspect and TRL here, verifiers by the `vf-eval`
named, OpenEnv's client by the Python named; its protocol else (OpenEnv, NeMo Gym, Harbor). A score that differs
in one bit is printed, and the exit code is 1. `verifiers-null` is verifiers with a harness of its own that
starts a Python for each turn: a few episodes. Vendored copies and Harbor leave out what they refuse.

TRL ends an episode at a turn without a call: where one of ours goes on, the score is compared with what our
environment gives when it is closed there.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' recorder

from tests.neighbours import (
    Scores,
    last_place,
    scores_by_harbor,
    scores_by_inspect,
    scores_by_openenv_client,
    scores_by_vendored,
    scores_by_verifiers,
)
from tests.recorded_episodes import (
    Recording,
    record,
    scores_by_nemo_gym,
    scores_by_openenv,
    scores_in_trl,
    write_environments,
)
from vertigym.envs import registry

SIZES = {"decision": 290, "agent": 200, "code": 100, "math": 200, "trace": 180, "flaky": 30}
NULL = 4  # episodes of each through verifiers' own harness
NOT_VENDORED = ("flaky",)  # another package's
NOT_HARBOR = (*NOT_VENDORED, "agent")  # several turns


def by_trl(one: Recording, home: Path) -> Scores:
    """`GRPOTrainer`."""
    from tests.trl_player import scores_by_trl

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    with tempfile.TemporaryDirectory(dir=home) as folder:
        found = scores_by_trl(registry.make(one.env), one.replies, last_place(one), Path(folder))
    return {task: score for task, score in found.items() if task in one.scores}


def main() -> None:
    """Record, play everywhere, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vf-eval", default="")
    parser.add_argument("--openenv", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--share", type=float, default=1.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sys.path.insert(0, folder)
        sizes = {name: max(1, int(size * given.share)) for name, size in SIZES.items()}
        envs = write_environments(home, eval_tasks=SIZES["agent"])
        recordings = {name: record(env, sizes[name]) for name, env in envs.items()}
        for name, one in recordings.items():
            unscored = sum(score is None for score in one.scores.values())
            print(f"{name}: {len(one.scores)} episodes, {unscored} without a score", flush=True)
        players: dict[str, Callable[[Recording], Scores]] = {
            "openenv": scores_by_openenv,
            "nemo-gym": scores_by_nemo_gym,
            "inspect": lambda one: scores_by_inspect(one, home),
            "trl": lambda one: by_trl(one, home),
            "openenv-client": lambda one: scores_by_openenv_client(one, home, given.openenv),
            "verifiers": lambda one: scores_by_verifiers(one, home, given.vf_eval, "verifiers_chat"),
            "verifiers-null": lambda one: scores_by_verifiers(one, home, given.vf_eval, "null", NULL),
            "vendored": lambda one: scores_by_vendored(one, home),
            "harbor": lambda one: scores_by_harbor(one, home),
        }
        missing = ["openenv-client"] * (not given.openenv) + ["verifiers", "verifiers-null"] * (
            not given.vf_eval
        )
        chosen = given.only.split(",") if given.only else [name for name in players if name not in missing]
        wrong = sum(_compared(program, players[program], recordings) for program in chosen)
    sys.exit(bool(wrong))


def _compared(program: str, play: Callable[[Recording], Scores], recordings: dict[str, Recording]) -> int:
    """How many scores differ; says so."""
    began, compared, differ = time.monotonic(), 0, 0
    left_out = {"vendored": NOT_VENDORED, "harbor": NOT_HARBOR}.get(program, ())
    for name, one in recordings.items():
        if name in left_out:
            continue
        expected = scores_in_trl(one) if program == "trl" else one.scores
        if program == "verifiers-null":
            expected = dict(list(expected.items())[:NULL])
        found = play(one)
        bad = [task for task in expected if found.get(task, "missing") != expected[task]]
        for task in bad[:3]:
            print(f"{program}, {name}, {task}: {found.get(task, 'missing')}, and not {expected[task]}")
        compared, differ = compared + len(expected), differ + len(bad)
    print(f"{program}: {compared} compared, {differ} differ ({time.monotonic() - began:.0f} s)", flush=True)
    return differ


if __name__ == "__main__":
    main()
