"""An environment of ours trained by TRL's GRPOTrainer, and gated by `vertigym eval`.

    python examples/trl/train.py

The support desk's messages (examples/desk), each for one of six desks. A tiny model imitates the desk's old
log, a third of which is wrong; TRL goes on with the environment's verdicts; the gate compares both on messages
that neither has seen. One CPU core and about a minute (extra `trl`); nothing is downloaded.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from datasets import disable_progress_bars
from trl import GRPOConfig, GRPOTrainer

import vertigym
from vertigym.core.config import load
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

EXAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(EXAMPLES / "desk"))
import desk  # noqa: E402

OUT = Path("runs/trl")
STEPS = 25


def main() -> int:
    """What the gate says: 0 passed, 1 failed."""
    shutil.rmtree(OUT, ignore_errors=True)
    disable_progress_bars()
    desk.write(OUT / "intent", desk.intents, 2000)
    shutil.copy(EXAMPLES / "desk" / "intent" / "env.toml", OUT / "intent")
    places = [f"output={OUT}", f"env={OUT / 'intent'}", f"sft.data={OUT / 'intent' / 'train.jsonl'}"]
    warm = train(load(RunConfig, EXAMPLES / "desk" / "intent" / "sft.toml", places)).last
    tuned = train_by_trl(warm)
    suite = EXAMPLES / "trl" / "suite.toml"
    command = [sys.executable, "-m", "vertigym", "eval", suite, "-m", tuned, "-b", warm, "-o", OUT / "eval"]
    return subprocess.run([*map(str, command)]).returncode


def train_by_trl(start: Path) -> Path:
    """GRPO by TRL from the model in a folder; the folder of the trained one."""
    config = GRPOConfig(
        output_dir=str(OUT / "checkpoints"),
        max_steps=STEPS,
        per_device_train_batch_size=256,
        num_generations=8,
        max_completion_length=6,
        learning_rate=5e-4,
        temperature=1.0,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    trainer = GRPOTrainer(str(start), args=config, **vertigym.to_trl(vertigym.envs.make(str(OUT / "intent"))))
    trainer.train()
    trainer.save_model(str(OUT / "tuned"))
    return OUT / "tuned"


if __name__ == "__main__":
    sys.exit(main())
