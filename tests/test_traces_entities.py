"""Names by a model: what a spaCy pipeline recognises is masked as a listed name is, with one placeholder for both."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.traces.pii.entities import entities
from vertigym.traces.pii.masker import Masker

from .trace_imports import call, kept, run, write


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pipeline of rules, on disk: spaCy itself, without a model to download."""
    spacy = pytest.importorskip("spacy")
    model = spacy.blank("en")
    ruler = model.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {
                "label": "PERSON",
                "pattern": [{"LOWER": {"IN": ["annegret", "tomasz"]}}, {"IS_TITLE": True, "OP": "?"}],
            },
            {"label": "GPE", "pattern": "Rosenheim"},
        ]
    )
    folder = tmp_path_factory.mktemp("ner") / "pipeline"
    model.to_disk(folder)
    return str(folder)


def test_what_a_model_calls_a_person_is_a_name(pipeline: str) -> None:
    masker = Masker(names=["Anna Berg"], ner=entities(pipeline, ("PERSON",)))
    text = "Annegret Vogel of Rosenheim met Anna Berg; annegret Vogel wrote to tomasz (t@example.com)."
    assert masker.mask(text) == "[NAME_1] of Rosenheim met [NAME_2]; [NAME_1] wrote to [NAME_3] ([EMAIL_1])."
    assert masker.mask("\u200bTomasz \\u0041 called") == "\u200b[NAME_4] called"  # places are those of the text
    both = Masker(ner=entities(pipeline, ("PERSON", "GPE")))
    assert both.mask("no digit here, Tomasz from Rosenheim") == "no digit here, [NAME_1] from [NAME_2]"
    assert Masker(["email"], ner=entities(pipeline, ("PERSON",))).mask("Tomasz") == "Tomasz"


def test_an_import_names_its_pipeline(pipeline: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [call("a", "I am Tomasz", "Hello Tomasz")])
    run([file], tmp_path / "out", pii={"ner": pipeline}, split={"eval": 0, "test": 0})
    (trace,) = kept(tmp_path / "out")["train"]
    assert (trace.question, trace.completion) == ("I am [NAME_1]", "Hello [NAME_1]")


def test_a_pipeline_that_is_not_there_or_knows_no_such_label_is_named(pipeline: str) -> None:
    with pytest.raises(ConfigError, match="no_such_pipeline"):
        entities("no_such_pipeline", ("PERSON",))
    with pytest.raises(ConfigError, match="knows none of MISC; it has GPE, PERSON"):
        entities(pipeline, ("MISC",))


def test_without_spacy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "spacy":
            raise ImportError
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependencyError, match=r"vertigym\[ner\]"):
        entities("en_core_web_sm", ("PERSON",))
