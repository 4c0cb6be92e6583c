"""The loop of a product's own model: serve, collect, make an environment, train, gate, serve again.

    python examples/loop/loop.py

The support desk (examples/desk) starts with a model that imitates its old logs. It is served over HTTP;
customers ask through the official OpenAI client, and the clerk who gets a message says whether it was for them.
What was recorded is imported, split and checked, becomes an environment, and trains the next model; the gate
compares the two on calls that neither was trained on, and the next model is served in its turn. Each step is a
vertigym command.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from vertigym.core.files import read_json, write_text

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "desk"))
import desk  # noqa: E402

OUT = Path("runs/loop")
VERTIGYM = str(Path(sys.executable).with_name("vertigym"))
QUESTIONS = 1200
ROUNDS = 2


def main() -> int:
    """0 when the second model was promoted and served better, 1 when not."""
    began = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    model, shares = first_model(), []
    for number in range(1, ROUNDS + 1):
        folder = OUT / f"round-{number}"
        shares.append(collect(model, folder, seed=number))
        print(f"round {number}: {model} was right in {shares[-1]:.1%} of {QUESTIONS} calls, people say")
        if number < ROUNDS:
            promoted = next_model(model, folder)
            if promoted is None:
                print("the gate kept the old model")
                return 1
            model = promoted
    print(f"{time.perf_counter() - began:.0f} s in all")
    return 0 if shares[-1] > shares[0] else 1


def first_model() -> str:
    """A tiny model that imitates the desk's old logs."""
    desk.write(OUT / "old", desk.intents, 2000)
    environment(OUT / "old", OUT / "old")
    vertigym("train", HERE / "sft.toml")
    return str(newest(OUT / "sft"))


def collect(model: str, folder: Path, seed: int) -> float:
    """Serve the model, ask it, tell it what people say; the share of calls that were right. In the end the
    server is killed while it writes, as machines do."""
    calls, answered = list(desk.intents(QUESTIONS, seed=100 + seed)), list[str]()
    with server(model, folder / "calls.jsonl") as (process, url):
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        people = client.with_options(base_url=url.removesuffix("/v1"))

        def one(call: dict[str, Any]) -> bool:
            reply = client.chat.completions.create(
                model="intent", messages=call["messages"], user=call["customer"], max_tokens=6
            )
            answered.append(reply.id)
            right = bool(reply.choices[0].message.content == call["label"])
            said = {"thumb": "up"} if right else {"thumb": "down", "edit": call["label"]}
            people.post("/feedback", body={"id": reply.id, **said}, cast_to=object)
            return right

        with ThreadPoolExecutor(8) as pool:
            share = sum(pool.map(one, calls)) / len(calls)
            unlucky = [pool.submit(one, call) for call in desk.intents(200, seed=200 + seed)]
            next(as_completed(unlucky))
            process.kill()
        client.close()
    lost = set(answered) - recorded(folder / "calls.jsonl")
    print(f"killed in mid-write: {len(answered)} calls were answered, {len(lost)} of them are lost")
    assert not lost
    return share


def recorded(file: Path) -> set[str]:
    """The ids in a record; a torn last line has none."""
    found = set()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.add(json.loads(line)["id"])
        except ValueError:
            continue
    return found


def next_model(model: str, folder: Path) -> str | None:
    """What was recorded becomes an environment and trains the next model; None where the gate says no."""
    imported([folder / "calls.jsonl"], folder / "traces")
    return improved(model)


def imported(logs: list[Path], traces: Path) -> None:
    """Logs become the environment of the next model."""
    vertigym("traces", "import", *logs, "-o", traces)
    environment(OUT / "env", traces)
    vertigym("env", "check", OUT / "env")


def improved(model: str) -> str | None:
    """The next model, trained on what people said; None where the gate says no."""
    vertigym("train", HERE / "grpo.toml", f"model={model}", f'eval.suites=["{HERE / "suite.toml"}"]')
    promoted = OUT / "grpo" / "promoted.json"
    return str(OUT / "grpo" / read_json(promoted)["checkpoint"]) if promoted.is_file() else None


def environment(folder: Path, traces: Path) -> None:
    """The environment over these traces: an `env.toml`, and nothing else."""
    where = os.path.relpath(traces, folder)
    write_text(folder / "env.toml", (HERE / "env.toml").read_text() + f'traces = "{where}"\n')


@contextmanager
def server(model: str, record: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`vertigym serve` beside us, and its address."""
    command = [VERTIGYM, "serve", model, "-o", str(record), "--port", "0", "--rpm", "0", "--name", "intent"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            line = next((line for line in process.stderr if "serving on " in line), "")
            if not line:
                raise SystemExit("the server did not start")
            yield process, line.partition("serving on ")[2].partition(",")[0]
        finally:
            process.kill()


def newest(run: Path) -> Path:
    """A run's last checkpoint."""
    return sorted((run / "checkpoints").iterdir())[-1]


def vertigym(*arguments: object) -> None:
    """One command; what it says is shown, and a failure ends the loop."""
    command = [VERTIGYM, *map(str, arguments)]
    print("$ vertigym", *command[1:], flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
