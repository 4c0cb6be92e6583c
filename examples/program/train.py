"""Train the model inside an agent that owns its loop, by what the agent prints.

    python examples/program/train.py

The agent (agent.py) is run once an episode. A warm start imitates an old log, half of which is wrong; RL
goes on from what the agent prints. One CPU core, nothing is downloaded.
"""

import random
import shutil
from itertools import product
from pathlib import Path

from agent import CLERKS, clerk_question, desk_question  # type: ignore[import-not-found]

from vertigym.core.config import load
from vertigym.core.files import write_jsonl
from vertigym.evals.compare import compare
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite
from vertigym.policies.load import load_policy
from vertigym.reports.progress import watched
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

HERE = Path(__file__).parent
OUT = Path("runs/program")
TOOLS = ("drill", "saw", "hammer", "plane", "chisel")
LAMPS = ("bulb", "lantern", "torch", "spotlight", "chandelier")
ITEMS = dict.fromkeys(TOOLS, "tools") | dict.fromkeys(LAMPS, "lamps")
MAILS = {
    "warranty": ("my {} stopped working", "the {} broke after a week", "this {} does not start"),
    "returns": ("I do not want the {}", "take the {} back please", "the {} is the wrong one"),
    "sales": ("how much is a {}", "do you have a {}", "I would like to buy a {}"),
}


def main() -> None:
    """A warm start and a short RL, and how both do on mails that neither has seen."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(HERE, OUT / "env", ignore=shutil.ignore_patterns("__pycache__"))
    rows = [
        {"question": mail.format(item), "answer": f"{desk} {CLERKS[desk][ITEMS[item]]}"}
        for desk, mails in MAILS.items()
        for mail, item in product(mails, ITEMS)
    ]
    draw = random.Random(0)
    draw.shuffle(rows)
    write_jsonl(OUT / "env" / "train.jsonl", rows[:45])
    write_jsonl(OUT / "env" / "eval.jsonl", rows[45:])
    write_jsonl(OUT / "rows.jsonl", (remember(row, draw) for row in rows[:45] * 40))
    warm, tuned = run("sft.toml"), run("grpo.toml")
    suite = load_suite(HERE / "suite.toml")
    reports = [run_suite(suite, load_policy(one.last), model=str(one.last)) for one in (warm, tuned)]
    found = compare(reports)[0]
    print(f"on {len(reports[0].rows)} unseen mails: {found.verdict}")


def remember(row: dict[str, str], draw: random.Random) -> dict[str, object]:
    """The agent's chat on a mail as an old log has it: half of it right, half with any desk and any clerk."""
    desk, clerk = row["answer"].split()
    if draw.random() < 0.5:
        desk = draw.choice(list(CLERKS))
        clerk = draw.choice(list(CLERKS[desk].values()))
    said = [desk_question(row["question"]), desk, clerk_question(desk), clerk]
    roles = ("user", "assistant") * 2
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]}


def run(config: str) -> RunOutcome:
    """Train as `vertigym train` does."""
    settings = load(RunConfig, HERE / config, [f"output={OUT}"])
    with watched(settings.steps) as progress:
        return train(settings, progress=progress)


if __name__ == "__main__":
    main()
