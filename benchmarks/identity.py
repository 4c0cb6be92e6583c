"""Whether two checkouts train to the same bits: short runs of every kind on each, and what differs.

    python benchmarks/identity.py ../before .

A change that only moves or renames code must leave metrics, rollouts and weights as they are. Runs go through
the command line, in a process each, so the two checkouts may be organised differently. With one checkout, the
digests are printed. Keys of configs and metrics that were renamed between the two are given in `RENAMED`.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VOLATILE = ("seconds", "tokens_per_second", "memory")
RENAMED: dict[str, str] = {}  # metric before -> metric after
SHORT = ["steps=3", "threads=1"]
SAMPLED = [*SHORT, "rollout.save_every=1", "rollout.tasks=8", "policy.minibatches=2"]
GATED = ["env=vertigym/Returns-v0", 'eval.suites=["suite.toml"]', "eval.every=2", "optimizer.lr=1e-3"]
UNREWARDED = ["policy.advantage=reinforce++", "policy.entropy=0.01"]  # every sample has a gradient
WARM = ["model=runs/sft/checkpoints/step-000030", *GATED, *SAMPLED]
RUNS: dict[str, list[str]] = {
    "sft": ["algorithm=sft", "model=tiny", "sft.data=rows.jsonl", "sft.batch=32", *GATED, *SHORT, "steps=30"],
    "grpo": ["algorithm=grpo", *WARM],
    "ppo": ["algorithm=ppo", *WARM],
    "lora": ["algorithm=grpo", "lora.rank=4", "policy.kl=0.01", *WARM],
    "stale": ["algorithm=grpo", "rollout.staleness=1", "policy.ratio_to=trainer", *WARM],
    "agent": ["algorithm=grpo", *UNREWARDED, "model=tiny", "env=agent", "rollout.max_tokens=24", *SAMPLED],
    "code": [
        "algorithm=grpo",
        *UNREWARDED,
        "model=tiny",
        "env=vertigym/Functions-v0",
        "rollout.max_tokens=40",
        *SAMPLED,
    ],
}
SUITE = """\
name = "identity"
metrics = ["exact"]
[[env]]
id = "vertigym/Returns-v0"
split = "eval"
tasks = 60
[sampling]
max_tokens = 32
[[gate]]
rule = "improves"
metric = "exact"
"""


def main() -> int:
    """Run the kinds in each checkout; 1 when two checkouts differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--only", nargs="*", default=list(RUNS))
    arguments = parser.parse_args()
    found = [digests(checkout.resolve(), arguments.only) for checkout in arguments.checkouts]
    print(json.dumps(found[0], indent=1))
    differing = sorted(name for name in found[0] | found[-1] if found[0].get(name) != found[-1].get(name))
    print(f"{len(found[0])} digests, {len(differing)} differ" + "".join(f"\n  {name}" for name in differing))
    return int(bool(differing))


def digests(checkout: Path, kinds: list[str]) -> dict[str, str]:
    """A digest of each run's metrics, rollouts and weights."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "src").mkdir()
        (here / "src/vertigym").symlink_to(checkout)
        (here / "suite.toml").write_text(SUITE)
        (task_file,) = (f for f in checkout.rglob("returns/tasks/train.jsonl") if ".venv" not in f.parts)
        tasks = [json.loads(line) for line in task_file.read_text().splitlines()]
        (here / "rows.jsonl").write_text("".join(json.dumps(chat(task)) + "\n" for task in tasks))
        table = checkout / "examples/agent/desk.csv"
        vertigym(here, "env", "import", str(table), "--id", "acme/Desk-v0", "--mode", "agent", "-o", "agent")
        for kind in ["sft", *(kind for kind in kinds if kind != "sft")]:
            (here / "run.toml").write_text(
                f'name = "{kind}"\nsteps = 1\nenv = ""\nmodel = ""\nalgorithm = "grpo"\n'
            )
            vertigym(here, "train", "run.toml", *RUNS[kind], allowed=(0, 1))
            run = here / "runs" / kind
            for file in sorted(run.rglob("*.safetensors")):
                found[str(file.relative_to(here))] = digest(file.read_bytes())
            for file in [*sorted(run.glob("rollouts/*")), run / "metrics.jsonl"]:
                rows = [repeatable(json.loads(line)) for line in file.read_text().splitlines()]
                found[str(file.relative_to(here))] = digest(json.dumps(rows, sort_keys=True).encode())
    return found


def chat(task: dict[str, object]) -> dict[str, object]:
    """A task and its reference answer, as a chat."""
    answer = {"role": "assistant", "content": json.dumps(task["answer"])}
    return {"messages": [{"role": "user", "content": str(task["prompt"])}, answer]}


def repeatable(value: object) -> object:
    """Without what takes another time each time, under the newer names."""
    if isinstance(value, list):
        return [repeatable(item) for item in value]
    if isinstance(value, dict):
        kept = {
            RENAMED.get(k, k): v
            for k, v in value.items()
            if not k.startswith(VOLATILE) and not k.endswith("_s")
        }
        return {k: repeatable(v) for k, v in kept.items()}
    return value


def digest(data: bytes) -> str:
    """The first half of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def vertigym(here: Path, *words: str, allowed: tuple[int, ...] = (0,)) -> None:
    """Run the command line of the checkout that `here/src` leads to."""
    env = {**os.environ, "PYTHONPATH": str(here / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "vertigym", *words], cwd=here, env=env, capture_output=True, text=True
    )
    if done.returncode not in allowed:
        sys.exit(f"vertigym {' '.join(words)}\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
