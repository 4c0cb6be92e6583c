"""Runs the notebooks of `docs/notebooks` as a reader would, and keeps what they print.

    python -m tests.notebooks [NAME …]        run them, and write their outputs into them

Each runs in an empty folder, with a kernel of this interpreter.
"""

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, folder: Path) -> Any:
    """The notebook with its outputs, run in `folder`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    env = os.environ | {
        "COLUMNS": "78",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "ignore",  # of widgets that are not there
    }
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", coalesce_streams=True, resources=place
    )
    client.execute(env=env)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = shown(output["text"]).replace(f"{folder}/", "")
    return notebook


def shown(text: str) -> str:
    """What a terminal shows of it in the end: no colours, and nothing of what was drawn over."""
    text = re.sub(r"[ \r]*\n", "\n", text)
    for drawn_over in (r"[^\n]*\n\x1b\[1A\x1b\[2K", r"[^\n]*(\x1b\[2K|\r)", r"\x1b\[[0-9;?]*[A-Za-z]"):
        text = re.sub(drawn_over, "", text)
    return text


def printed(notebook: Any) -> str:
    """All that the cells have printed."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return "".join(output.get("text", "") for output in outputs)


def main(names: Sequence[str]) -> None:
    """Run those of these names, or all."""
    import nbformat

    for path in NOTEBOOKS:
        if not names or path.stem in names:
            nbformat.write(run(path, Path(tempfile.mkdtemp())), path)
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
