"""Recipes of tinker-cookbook, unchanged but for base URL, model and data, against `vertigym tinker`.

    python -m benchmarks.tinker_recipes NAME FOLDER URL sl_loop|rl_loop LOG [key=value …]

Runs in an environment of its own with `tinker`, `tinker-cookbook` and torch; NAME is what the server calls the
base in FOLDER, and a name that the cookbook has a renderer for. The recipes' data sets are on the hub; here
`datasets.load_dataset` gives short rows of the same columns instead.
"""

import importlib
import random
import sys
from typing import Any


def local_rows(path: str, *_: Any, **__: Any) -> Any:
    """Rows in the columns of GSM8K or No Robots."""
    import datasets

    rng = random.Random(0)
    rows: list[dict[str, Any]]
    if "gsm8k" in path:
        sums = [(a, b) for a in range(3) for b in range(3)]
        drawn = [rng.choice(sums) for _ in range(2000)]
        rows = [{"question": f"What is {a}+{b}?", "answer": f"#### {a + b}"} for a, b in drawn]
    else:
        colours = {"France": "paris", "Japan": "tokyo", "Italy": "rome", "Spain": "madrid", "Peru": "lima"}
        asked = [rng.choice(list(colours)) for _ in range(2000)]
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"Which colour is {one}?"},
                    {"role": "assistant", "content": f"{one} is {colours[one]} blue."},
                ]
            }
            for one in asked
        ]
    return datasets.DatasetDict(train=datasets.Dataset.from_list(rows))


def value_of(text: str) -> Any:
    """A number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


if __name__ == "__main__":
    name, folder, url, recipe, log, *settings = sys.argv[1:]
    import datasets
    from tinker_cookbook import tokenizer_utils
    from transformers import AutoTokenizer

    tokenizer_utils.register_tokenizer(name, lambda: AutoTokenizer.from_pretrained(folder))
    datasets.load_dataset = local_rows
    module = importlib.import_module(f"tinker_cookbook.recipes.{recipe}")
    given = {key: value_of(value) for key, _, value in (one.partition("=") for one in settings)}
    module.main(module.Config(base_url=url, model_name=name, log_path=log, **given))
