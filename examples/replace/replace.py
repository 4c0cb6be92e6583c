"""Replace an API by a small model: as good, in a fraction of the time and cost, or it does not ship.

    python examples/replace/replace.py

The support desk asks a large model behind an API. `vertigym serve` stands in front of it and records what it
answers; the desks say of some answers whether they were right. A small model first imitates the recorded
answers (distillation), then learns by RL from what the desks said. One suite compares the two endpoints, call
by call: quality, latency, cost; its gates decide. The "API" here is a stand-in: rules that take their time, and
that do not know this house's desk for warranties.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from vertigym.core.files import read_json, write_text
from vertigym.core.seeds import generator
from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.serving.service import serve_policy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "desk"))
import desk  # noqa: E402

OUT = Path("runs/replace")
VERTIGYM = str(Path(sys.executable).with_name("vertigym"))
CALLS = 1500
SAID = 0.5  # share of calls that the desks say something about


class Large:
    """What stands in for a large model: it knows the phrases but not this house, which does not take
    warranty cases for returns; and it takes 0.3 s."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """The desk of each message."""
        time.sleep(0.3)
        return [self._one(prompt.messages[-1]["content"]) for prompt in prompts]

    def _one(self, text: str) -> Completion:
        right = next(
            (
                name
                for name, phrases in desk.DESKS.items()
                if any(all(part in text for part in phrase.split("{}")) for phrase in phrases)
            ),
            "other",
        )
        odd = generator(0, "large model", text).random()
        answer = "returns" if right == "warranty" and odd < 0.7 else right
        return Completion(answer, prompt_tokens=150 + len(text) // 4, completion_tokens=3)


def main() -> int:
    """The exit code of the comparison: 0 when the small model may take over."""
    shutil.rmtree(OUT, ignore_errors=True)
    large = f"openai:desk-large@{start_large(OUT / 'calls.jsonl')}"
    ask(large.partition("@")[2])
    settings = ("--set", "duplicates.near=0", "--set", "split.eval=0.2", "--set", "split.test=0.3")
    vertigym("traces", "import", OUT / "calls.jsonl", "-o", OUT / "traces", *settings)
    where = os.path.relpath(OUT / "traces", OUT / "env")
    write_text(OUT / "env" / "env.toml", (HERE / "env.toml").read_text() + f'traces = "{where}"\n')
    vertigym("train", HERE / "distill.toml")
    vertigym("train", HERE / "grpo.toml", f'eval.suites=["{HERE / "gate.toml"}"]')
    promoted = OUT / "grpo" / "promoted.json"
    model = (
        OUT / "grpo" / read_json(promoted)["checkpoint"]
        if promoted.is_file()
        else OUT / "distill/checkpoints/step-000060"
    )
    with served(model) as url:
        return vertigym(
            "eval", HERE / "suite.toml", "-m", f"openai:desk-small@{url}", "-b", large, "-c", 1, check=False
        )


def start_large(record: Path) -> str:
    """The recorder in front of the large model, on a thread; its address."""
    ready, found = threading.Event(), list[str]()

    def told(url: str) -> None:
        found.append(url)
        ready.set()

    options: dict[str, Any] = {
        "name": "desk-large",
        "version": "2026-01",
        "port": 0,
        "per_minute": 0,
        "on_ready": told,
    }
    threading.Thread(target=serve_policy, args=(Large, record), kwargs=options, daemon=True).start()
    ready.wait(60)
    return found[0]


def ask(url: str) -> None:
    """The product's traffic, and what the desks say of half of it."""
    client = openai.OpenAI(base_url=url, api_key="none")
    people = client.with_options(base_url=url.removesuffix("/v1"))

    def one(numbered: tuple[int, dict[str, Any]]) -> None:
        number, call = numbered
        reply = client.chat.completions.create(
            model="desk-large", messages=call["messages"], user=call["customer"], max_tokens=6
        )
        if number < SAID * CALLS:
            right = reply.choices[0].message.content == call["label"]
            said = {"thumb": "up"} if right else {"thumb": "down", "edit": call["label"]}
            people.post("/feedback", body={"id": reply.id, **said}, cast_to=object)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, enumerate(desk.intents(CALLS, seed=300))))


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The small model behind `vertigym serve`; its address."""
    command = [
        VERTIGYM,
        "serve",
        str(model),
        "-o",
        str(OUT / "small.jsonl"),
        "--port",
        "0",
        "--name",
        "desk-small",
    ]
    with subprocess.Popen([*command, "--rpm", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            line = next(line for line in process.stderr if "serving on " in line)
            yield line.partition("serving on ")[2].partition(",")[0]
        finally:
            process.kill()


def vertigym(*arguments: object, check: bool = True) -> int:
    """One command; its exit code."""
    command = [VERTIGYM, *map(str, arguments)]
    print("$ vertigym", *command[1:], flush=True)
    return subprocess.run(command, check=check).returncode


if __name__ == "__main__":
    sys.exit(main())
