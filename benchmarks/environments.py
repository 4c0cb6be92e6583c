"""What business environments cost: a tool step, scoring a decision, how both grow, and importing a model.

    python benchmarks/environments.py [--episodes 200] [--repeats 5]
    python benchmarks/environments.py --import DIR/*.json        # only the importing, of these models

Beside gymnasium's CartPole-v1 and `json.loads` with `==`, in one run. CPU time; each figure is the median of
the repeats, which take turns, so that a drifting machine drifts for all.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gymnasium
import numpy as np
from rich.console import Console
from rich.table import Table

from vertigym.core.types import Split, Task
from vertigym.envs.agent.env import AgentEnv, load
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.decision.builtin import RETURNS, folder_of
from vertigym.envs.decision.importer import DecisionImportReport, import_decision
from vertigym.envs.folders import EnvFolder
from vertigym.envs.registry import make
from vertigym.envs.tool_calls import write_call
from vertigym.rewards.decision import DecisionVerifier

SIZES: dict[Split, int] = {"train": 100, "eval": 10, "test": 10}
TURNS = (25, 50, 100, 200, 400)
RECORDS = (50, 100, 200, 400, 800)

CLOCK = "2025-03-19T12:00:00Z"

Way = Callable[[], float]  # CPU seconds of one unit of work


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--import", dest="models", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    if arguments.models:
        Console(width=130).print(importing(arguments.models))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "returns"
        import_agent(folder_of(RETURNS) / "decision.json", "bench/Returns-v0", folder, sizes=SIZES)
        console = Console(width=100)
        console.print(importing([folder_of(RETURNS) / "decision.json"]))
        console.print(steps(load(EnvFolder(folder)), arguments.episodes, arguments.repeats))
        console.print(scoring(arguments.repeats))
        console.print(growth("turns of one episode", TURNS, lambda n: turns(folder, n), arguments.repeats))
        console.print(growth("cases in the database", RECORDS, lambda n: records(folder, n), arguments.repeats))


def importing(files: list[Path]) -> Table:
    """Importing and sampling models at the default sizes: what it costs a rule, and what it covers."""
    table = Table(title="importing a decision model (CPU time, default sizes, seed 0)")
    for column in ("model", "rules", "s", "ms a rule", "hit", "proven unhittable", "neighbours", "pairs"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for file in files:
        report, seconds = imported(file)
        possible = report.rules - len(report.not_hit) + len(report.not_proven)
        table.add_row(
            file.stem if file.stem != "decision" else file.parent.name,
            str(report.rules),
            f"{seconds:.2f}",
            f"{1000 * seconds / report.rules:.0f}" if report.rules else "-",
            f"{report.rules - len(report.not_hit)} of {possible}" if possible else "-",
            str(report.rules - possible),
            f"{report.adjacent_shown} of {report.adjacent}" if report.adjacent else "-",
            f"{report.interacting_hit} of {report.interacting}" if report.interacting else "-",
        )
    return table


def imported(file: Path) -> tuple[DecisionImportReport, float]:
    """A model imported into a scratch folder (its clock stopped), and the CPU seconds it took."""
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        report = import_decision(file, "bench/Model-v0", Path(scratch) / "model", now=CLOCK)
        return report, time.process_time() - start


def steps(env: AgentEnv, episodes: int, repeats: int) -> Table:
    """Tool steps of the expert's episodes beside CartPole's."""
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    played = [tasks[i % len(tasks)] for i in range(episodes)]
    cart = gymnasium.make("CartPole-v1")
    found = measured(
        {
            "CartPole-v1": lambda: cart_pole(cart, 20 * episodes),
            "tool step": lambda: agent(env, played, "tool"),
            "last step, which judges the state": lambda: agent(env, played, "last"),
            "opening an episode": lambda: agent(env, played, "open"),
            "all of an episode, a step": lambda: agent(env, played, "all"),
        },
        repeats,
    )
    size = env.config.database
    table = Table(title=f"A step ({size.customers} customers, {size.cases} cases)")
    for column in ("what", "µs", "steps of CartPole-v1"):
        table.add_column(column)
    for name, seconds in found.items():
        table.add_row(name, f"{1e6 * seconds:.1f}", f"{seconds / found['CartPole-v1']:.1f}")
    return table


def scoring(repeats: int) -> Table:
    """Scoring right decisions beside reading and comparing the same text."""
    env = make(RETURNS)
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")][:500]
    texts = [(json.dumps(task.answer), task.answer) for task in tasks]
    verifier = DecisionVerifier()

    def ours() -> None:
        for text, answer in texts:
            verifier(completion=text, answer=answer)

    def plain() -> None:
        for text, answer in texts:
            assert json.loads(text) == answer

    found = measured(
        {"json.loads and ==": lambda: timed(plain) / 500, "DecisionVerifier": lambda: timed(ours) / 500},
        repeats,
    )
    table = Table(title="Scoring a decision")
    for column in ("what", "µs", "times"):
        table.add_column(column)
    for name, seconds in found.items():
        table.add_row(name, f"{1e6 * seconds:.2f}", f"{seconds / found['json.loads and ==']:.1f}")
    return table


def growth(name: str, sizes: tuple[int, ...], way: Callable[[int], Way], repeats: int) -> Table:
    """Cost by size; the line through them, and how far each lies from it."""
    ways = {size: way(size) for size in sizes}
    found = measured({str(size): ways[size] for size in sizes}, repeats)
    seconds = np.array([found[str(size)] for size in sizes])
    slope, start = np.polyfit(sizes, seconds, 1)
    table = Table(title=f"{name}: {1e6 * start:.0f} µs + {1e6 * slope:.2f} µs each")
    for column in (name, "µs", "on the line"):
        table.add_column(column)
    for size, spent in zip(sizes, seconds, strict=True):
        line = start + slope * size
        table.add_row(str(size), f"{1e6 * spent:,.0f}", f"{1e6 * line:,.0f} ({spent / line - 1:+.0%})")
    return table


def turns(folder: Path, count: int) -> Way:
    """An episode of so many look-ups."""
    env = load(EnvFolder(folder), max_turns=count + 1)
    task = env.tasks.get(env.tasks.ids("train")[0])
    look = write_call("get_case", case="R1")

    def episode() -> None:
        for _ in range(count):
            env.step(look)

    def way() -> float:
        env.reset(seed=0, options={"task": task})
        return timed(episode)

    return way


def records(folder: Path, count: int) -> Way:
    """Opening an episode with so many cases, and judging its last state."""
    env = load(EnvFolder(folder), database={"customers": max(count // 2, 3), "cases": count})
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    end = write_call("finish")

    def episodes() -> None:
        for task in tasks[:10]:
            env.reset(seed=0, options={"task": task})
            env.step(end)

    return lambda: timed(episodes) / 10


def agent(env: AgentEnv, tasks: list[Task], part: str) -> float:
    """CPU seconds of one step of the expert's episodes: of the tools, of the end, of all with the opening; or
    of an opening."""
    spent = {"open": 0.0, "tool": 0.0, "last": 0.0}
    counted = 0
    for task in tasks:
        actions = list(env.reference(task) or [])
        counted += len(actions)
        spent["open"] += timed(lambda task=task: env.reset(seed=0, options={"task": task}))  # type: ignore[misc]
        spent["tool"] += timed(lambda actions=actions: [env.step(a) for a in actions[:-1]])  # type: ignore[misc]
        spent["last"] += timed(lambda actions=actions: env.step(actions[-1]))  # type: ignore[misc]
    units = {"open": len(tasks), "last": len(tasks), "tool": counted - len(tasks), "all": counted}
    return (sum(spent.values()) if part == "all" else spent[part]) / units[part]


def cart_pole(env: gymnasium.Env[np.ndarray, np.int64], count: int) -> float:
    """CPU seconds of one step, openings left out."""
    spent, done = 0.0, 0
    actions = [np.int64(i % 2) for i in range(500)]
    while done < count:
        env.reset(seed=done)
        began = time.process_time()
        for action in actions:
            done += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        spent += time.process_time() - began
    return spent / done


def timed(work: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(ways: Mapping[str, Way], repeats: int) -> dict[str, float]:
    """The median of each way's repeats; they take turns, after one that does not count."""
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: statistics.median(one[name] for one in rounds) for name in ways}


if __name__ == "__main__":
    main()
