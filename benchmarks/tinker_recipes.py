"""Recipes of tinker-cookbook, unchanged but for base URL, model and data, against `vertigym tinker`.

    python -m benchmarks.tinker_recipes bases FOLDER
    vertigym tinker --base Qwen/Qwen3-8B=FOLDER/student --base Qwen/Qwen3-14B=FOLDER/teacher \
        --base Qwen/Qwen3-4B=FOLDER/desk
    python -m benchmarks.tinker_recipes RECIPE FOLDER URL LOG [key=value …]

RECIPE: sl_loop, rl_loop, rl_basic, dpo, on_policy_distillation, or decision_model, which is the cookbook's
`rl.train` on an environment of ours. Runs in an environment of its own with `tinker`, `tinker-cookbook` and
vertigym's extra `tinker`, with one more for rl_loop and rl_basic: `pylatexenc`, `math-verify`. The bases go by
names that the cookbook has renderers for. The recipes' data are on the hub; here `datasets.load_dataset` gives
short rows of the same columns. The student answers sums with the right digit at times, the teacher always.
"""

import asyncio
import importlib
import json
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STUDENT, TEACHER, DESK = "Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-4B"
RETURNS = "vertigym/Returns-v0"
SUMS = [(a, b) for a in range(3) for b in range(3)]
COLOURS = {"France": "paris", "Japan": "tokyo", "Italy": "rome", "Spain": "madrid", "Peru": "lima"}
SUFFIX = " Provide a numerical answer without units, written inside \\boxed{}."
# The figure of each recipe in its metrics.jsonl, and what it must do from the first five rows to the last.
FIGURES = {
    "sl_loop": ("train_mean_nll", "falls to a half"),
    "rl_loop": ("reward/total", "rises by 0.15"),
    "rl_basic": ("env/all/correct", "rises by 0.15"),
    "dpo": ("dpo_loss", "falls to a half"),
    "on_policy_distillation": ("teacher_kl", "falls to a half"),
    "decision_model": ("env/all/reward/total", "rises by 0.15"),
}


def messages(question: str, answer: str) -> list[dict[str, str]]:
    """A chat of one turn."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def sums(answer: Any) -> Iterator[tuple[str, str]]:
    """Sums without end, and what `answer` makes of them."""
    rng = random.Random(0)
    while True:
        a, b = rng.choice(SUMS)
        yield f"What is {a}+{b}?", f"\\boxed{{{answer(a + b, rng)}}}"


def right(total: int, _: random.Random) -> int:
    """What the teacher says."""
    return total


def wrong(total: int, rng: random.Random) -> int:
    """Another digit."""
    return rng.choice([digit for digit in range(5) if digit != total])


def at_times(total: int, rng: random.Random) -> int:
    """What the student says: right at four tenths and by chance."""
    return total if rng.random() < 0.4 else rng.randrange(5)


def taken(rows: Iterator[tuple[str, str]], count: int = 2000) -> list[tuple[str, str]]:
    """The first of them."""
    return [next(rows) for _ in range(count)]


def local_rows(path: str, *_: Any, split: str | None = None, **__: Any) -> Any:
    """Rows in the columns of the data set at `path`."""
    import datasets

    rows: list[dict[str, Any]]
    if "gsm8k" in path:
        rows = [{"question": q, "answer": f"#### {a[7:-1]}"} for q, a in taken(sums(right))]
    elif "DeepMath" in path:
        rows = [{"question": q + SUFFIX} for q, _ in taken(sums(right))]
    elif "hh-rlhf" in path:
        asked = [(f"\n\nHuman: {q}{SUFFIX}\n\nAssistant: ", a) for q, a in taken(sums(right))]
        rng = random.Random(1)
        rows = [{"chosen": q + a, "rejected": q + f"\\boxed{{{wrong(int(a[7:-1]), rng)}}}"} for q, a in asked]
    else:
        known = random.Random(0).choices(list(COLOURS), k=2000)
        rows = [{"messages": messages(f"Which colour is {c}?", f"{c} is {COLOURS[c]} blue.")} for c in known]
    made = datasets.Dataset.from_list(rows)
    return made if split else datasets.DatasetDict(train=made, test=made.take(64))


def build_bases(folder: Path) -> None:
    """`student` and `teacher` know sums, in the words of the recipes' prompts; `desk` has seen answers of the
    returns desk for a moment."""
    from vertigym import envs
    from vertigym.core.config import parse
    from vertigym.core.files import write_jsonl
    from vertigym.policies import tiny
    from vertigym.policies.scripted import reference_text
    from vertigym.trainer.config import RunConfig
    from vertigym.trainer.loop import train

    def imitate(name: str, chats: list[Any], model: str, *, steps: int) -> None:
        write_jsonl(folder / f"{name}.jsonl", ({"messages": chat} for chat in chats))
        table = {
            "name": name, "env": RETURNS, "model": model, "algorithm": "sft", "steps": steps,
            "output": str(folder / f"{name}-run"), "sft": {"data": str(folder / f"{name}.jsonl"), "batch": 32},
            "tiny": {"hidden": 64, "layers": 2}, "optimizer": {"lr": 3e-3, "schedule": "cosine"},
        }  # fmt: skip
        made = train(parse(RunConfig, table, source=name)).last
        (folder / name).symlink_to(Path(made).resolve())

    shot = messages(
        "How many r's are in strawberry?" + SUFFIX,
        "Let's spell the word out and number all the letters: 1) s 2) t 3) r 4) a 5) w 6) b 7) e 8) r 9) r 10) "
        "y. We have r's at positions 3, 8, and 9. \\boxed{3}",
    )
    for name, answer in (("student", at_times), ("teacher", right)):
        chats = [messages(q + SUFFIX, a) for q, a in taken(sums(answer))]
        chats = [chat if i % 4 else [*shot, *chat] for i, chat in enumerate(chats)]
        texts = [message["content"] for chat in chats[:20] for message in chat] + [
            f"{c} {COLOURS[c]}" for c in COLOURS
        ]
        tiny.build(texts * 2, folder / f"{name}-blank", size=tiny.TinySize(hidden=64, layers=2))
        imitate(name, chats, str(folder / f"{name}-blank"), steps=600)
    known = envs.make(RETURNS).tasks
    shown = [known.get(i) for i in known.ids("train")]
    imitate(
        "desk",
        [[*t.messages(), {"role": "assistant", "content": reference_text(t)}] for t in shown],
        "tiny",
        steps=80,
    )


def value_of(text: str) -> Any:
    """A number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def play(recipe: str, given: dict[str, Any]) -> None:
    """Run a recipe by its own main function."""
    if recipe in ("sl_loop", "rl_loop"):
        module = importlib.import_module(f"tinker_cookbook.recipes.{recipe}")
        module.main(module.Config(model_name=STUDENT, **given))
    elif recipe == "rl_basic":
        import chz

        module = importlib.import_module("tinker_cookbook.recipes.rl_basic")
        config = module.build_config_blueprint(STUDENT).make()
        sizes = {key: given.pop(key) for key in ("batch_size", "group_size")}
        data = chz.replace(config.dataset_builder, **sizes)
        module.main(chz.replace(config, dataset_builder=data, **given))
    elif recipe == "dpo":
        module = importlib.import_module("tinker_cookbook.recipes.preference.dpo.train")
        module.cli_main(module.CLIConfig(model_name=STUDENT, dataset="hhh", **given))
    elif recipe == "on_policy_distillation":
        module = importlib.import_module("tinker_cookbook.recipes.distillation.on_policy_distillation")
        asked = {"model_name": STUDENT, "teacher_model": TEACHER, "dataset": "deepmath"}
        asyncio.run(module.cli_main(module.CLIConfig(**asked, **given)))
    elif recipe == "decision_model":
        from tinker_cookbook.rl import train

        from vertigym.interop.tinker_cookbook_env import VertigymDatasetBuilder

        sizes = {key: given.pop(key) for key in ("batch_size", "group_size")}
        data = VertigymDatasetBuilder(env_id=RETURNS, model_name_for_tokenizer=DESK, **sizes)
        settings: dict[str, Any] = {
            "dataset_builder": data,
            "model_name": DESK,
            "recipe_name": recipe,
            "eval_every": 0,
        }
        asyncio.run(train.main(train.Config(**settings, **given)))
    else:
        sys.exit(f"no recipe {recipe!r}; there are {', '.join(FIGURES)}")


def told(recipe: str, log: Path) -> str:
    """What became of the figure."""
    name, bound = FIGURES[recipe]
    rows = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    found = [row[name] for row in rows if name in row]
    if len(found) < 10:
        return f"{recipe}: {len(found)} rows of {name}, of {sorted({key for row in rows for key in row})}"
    first, last = statistics.mean(found[:5]), statistics.mean(found[-5:])
    held = last <= first / 2 if bound == "falls to a half" else last >= first + 0.15
    return (
        f"{recipe}: {name} {first:.3f} -> {last:.3f} in {len(found)} steps ({bound}: {'yes' if held else 'no'})"
    )


if __name__ == "__main__":
    recipe, place, *rest = sys.argv[1:]
    if recipe == "bases":
        build_bases(Path(place))
        sys.exit()
    url, log, *settings = rest
    import datasets
    from tinker_cookbook import tokenizer_utils
    from transformers import AutoTokenizer

    for called, name in ((STUDENT, "student"), (TEACHER, "teacher"), (DESK, "desk")):
        tokenizer_utils.register_tokenizer(
            called, lambda name=name: AutoTokenizer.from_pretrained(f"{place}/{name}")
        )
    datasets.load_dataset = local_rows
    given = {key: value_of(value) for key, _, value in (one.partition("=") for one in settings)}
    play(recipe, {"base_url": url, "log_path": log, **given})
    print(told(recipe, Path(log)))
