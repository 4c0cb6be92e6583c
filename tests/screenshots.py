"""The pictures of docs/studio.md, made anew from a run of scripted policies:

    python -m tests.screenshots

Each page at 1280 and at 360 px, in few colours, so that they stay small. Needs Chromium, pillow and websockets.
"""

import os
import socket
import tempfile
import threading
from pathlib import Path

import uvicorn
from PIL import Image

from vertigym.evals.report import Report
from vertigym.reports.page import report_page
from vertigym.studio.run_list import RunList
from vertigym.studio.server import Studio

from .browser import Page, browser
from .story_run import story_run

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTHS = {1280: 1400, 360: 1500}  # px, and how high
COLOURS = 128


def main() -> None:
    """Make every picture."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # so that pages name short places
        root = Path("lender")
        run = story_run(root)
        evals = root / "runs"
        page_file = root / "report.html"
        before, after = (Report.load(evals / f"eval-{skill}") for skill in (30, 90))
        page_file.write_text(report_page(after, baseline=before, samples=evals / "eval-90" / "samples.jsonl"))
        server = uvicorn.Server(uvicorn.Config(Studio(RunList(root)).app(), log_level="warning", ws="none"))
        with socket.create_server(("127.0.0.1", 0)) as listening, browser() as page:
            threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            env = f"{root}/environment"
            for name, url, mark in (
                ("run", f"{address}/run?name=runs/{run.name}", "#rollouts"),
                ("eval", page_file.resolve().as_uri(), "#rollouts"),
                ("studio-runs", address, "article"),
                ("studio-play", f"{address}/environment?id={env}", "#action"),
                ("studio-rules", f"{address}/rules?id=vertigym/Returns-v0", ".edge"),
            ):
                for width, height in WIDTHS.items():
                    page.open(url, width=width, height=height, wait=mark)
                    prepare(page, name)
                    picture(page, PICTURES / f"{name}-{width}.png")
            server.should_exit = True


def prepare(page: Page, name: str) -> None:
    """What a reader would have done before looking."""
    if name == "studio-play":
        page.ask('document.getElementById(\'action\').value = \'{"decision": "approve", "rate": "none"}\'')
        page.ask("document.querySelector('#stage form').requestSubmit()")
        page.wait("document.getElementById('score')")
    if name == "studio-rules":
        page.wait("document.querySelector('[data-rule]').textContent !== '…'")
    if name in ("run", "eval"):
        page.ask("document.querySelector('.rollout').open = true")
        page.wait("document.querySelector('.rollout .turn')")


def picture(page: Page, file: Path) -> None:
    """A PNG without what is empty below the page."""
    file.parent.mkdir(exist_ok=True)
    page.picture(file)
    bottom = int(page.ask("document.getElementById('page').lastElementChild.getBoundingClientRect().bottom"))
    with Image.open(file) as whole:
        shown = whole.convert("RGB").crop((0, 0, whole.width, min(whole.height, bottom + 24)))
    shown.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main()
