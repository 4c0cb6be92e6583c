"""TRL's own `GRPOTrainer` plays recorded episodes: its loop, its parser and its tools."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vertigym
from vertigym.envs.env import Env
from vertigym.policies import tiny
from vertigym.policies.model_folder import load_model

HEADER = "<|im_start|>assistant\n"


def scores_by_trl(
    env: Env, replies: Sequence[tuple[str, int, str]], tasks: int, folder: Path
) -> dict[str, float | None]:
    """What the reward function says of the first tasks of the eval split, by task."""
    import trl
    from datasets import Dataset

    given = vertigym.to_trl(env)
    rows = [given["eval_dataset"][place] for place in range(tasks)]
    texts = [text for asked, _, text in replies for text in (asked, text)]
    tiny.build([*texts, str(rows)], folder, size=tiny.TinySize(context=1 << 14))
    model, tokenizer = load_model(folder)
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    tokenizer.chat_template = template.read_text()
    said = {(asked, number): text for asked, number, text in replies}
    seen: dict[str, float | None] = {}
    (reward,) = given["reward_funcs"]

    def noting(completions: Any, task_id: Sequence[str], **more: Any) -> Any:
        found = reward(completions=completions, task_id=task_id, **more)
        seen.update(zip(task_id, found, strict=True))
        return found

    class Player(trl.GRPOTrainer):  # type: ignore[misc]
        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
            prompts = [tokenizer.decode(ids) for ids in prompt_ids]
            shown = {a: f"<|im_start|>user\n{a}<|im_end|>" for a, _ in said}
            asked = [next(a for a in shown if shown[a] in text) for text in prompts]
            written = [
                said.get((a, text.count(HEADER) - 1), "Done.") for a, text in zip(asked, prompts, strict=True)
            ]
            return [tokenizer.encode(text + "<|im_end|>") for text in written], None

    config = trl.GRPOConfig(
        output_dir=str(folder / "out"), report_to=[], use_cpu=True, max_steps=1, num_generations=2,
        per_device_train_batch_size=2 * tasks, max_completion_length=2000, save_strategy="no",
        disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = Player(
        model=model,
        processing_class=tokenizer,
        reward_funcs=noting,
        args=config,
        train_dataset=Dataset.from_list(rows),
        environment_factory=given.get("environment_factory"),
    )
    trainer._generate_and_score_completions([row for row in rows for _ in range(2)])
    return seen
