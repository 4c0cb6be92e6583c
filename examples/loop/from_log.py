"""The loop from a log that another program wrote, in any form that `vertigym traces import` reads.

    python examples/loop/from_log.py LOG...

The logged answers teach the first model, which is as good as the one that gave them; what people said of them
trains the next one, and the gate compares the two on calls that neither was trained on.
"""

import shutil
import sys
from pathlib import Path

from loop import HERE, OUT, imported, improved, newest, vertigym


def main(logs: list[Path]) -> int:
    """0 when the second model was promoted, 1 when not."""
    shutil.rmtree(OUT, ignore_errors=True)
    traces = OUT / "round-1" / "traces"
    imported(logs, traces)
    vertigym("train", HERE / "sft.toml", f"env={OUT / 'env'}", f"sft.data={traces / 'train.jsonl'}")
    promoted = improved(str(newest(OUT / "sft")))
    print(f"promoted: {promoted}" if promoted else "the gate kept the old model")
    return 0 if promoted else 1


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
