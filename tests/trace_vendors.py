"""One exchange (`trace_exchange.py`) as each vendor's own types write it.

    python -m tests.trace_vendors           writes tests/logs/FORM.jsonl anew, of the SDKs that are installed

The files are checked in, so that no SDK is needed to read them back; where one is installed, a test makes its
files again and compares them.
"""

import json
from collections.abc import Callable
from pathlib import Path

from vertigym.tests.trace_apis import (
    anthropic_batch,
    anthropic_messages,
    anthropic_stream,
    gemini,
    openai_batch,
    openai_chat,
    openai_responses,
    openai_stored,
    openai_stream,
)
from vertigym.tests.trace_exchange import Rows
from vertigym.tests.trace_observers import langchain, langfuse, langsmith, openinference, opentelemetry

FOLDER = Path(__file__).parent / "logs"
FORMS: dict[str, tuple[str, Callable[[], Rows]]] = {  # form -> (the package that it needs, its rows)
    "openai_chat": ("openai", openai_chat),
    "openai_stream": ("openai", openai_stream),
    "openai_batch": ("openai", openai_batch),
    "openai_stored": ("openai", openai_stored),
    "openai_responses": ("openai", openai_responses),
    "anthropic_messages": ("anthropic", anthropic_messages),
    "anthropic_stream": ("anthropic", anthropic_stream),
    "anthropic_batch": ("anthropic", anthropic_batch),
    "gemini": ("google.genai", gemini),
    "langchain": ("langchain_core", langchain),
    "langsmith": ("langsmith", langsmith),
    "langfuse": ("langfuse", langfuse),
    "opentelemetry": ("opentelemetry.exporter.otlp.proto.common", opentelemetry),
    "openinference": ("openinference.semconv", openinference),
}


def main() -> None:
    """Write the files anew."""
    FOLDER.mkdir(exist_ok=True)
    for form, (package, rows) in FORMS.items():
        try:
            made = rows()
        except ImportError as error:
            print(f"{form}: needs {package} ({error})")
            continue
        (FOLDER / f"{form}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        print(f"{form}: {len(made)} rows")


if __name__ == "__main__":
    main()
