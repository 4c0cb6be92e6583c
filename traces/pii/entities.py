"""Names by a model: the entities that a spaCy pipeline recognises. It finds what is in no list, and errs; so it
is asked for by name (`pii.ner`), and which of its labels are personal is said (`pii.ner_labels`)."""

from collections.abc import Callable, Iterator, Sequence

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.traces.pii.normal_text import FOUND
from vertigym.traces.pii.numbers import Span

_UNUSED = ("parser", "tagger", "lemmatizer", "attribute_ruler")  # components that no entity needs


def entities(pipeline: str, labels: Sequence[str]) -> Callable[[str], Iterator[Span]]:
    """What finds the entities of these labels; `pipeline` is an installed package or a folder.

    Raises:
        MissingDependencyError: spaCy is not installed.
        ConfigError: the pipeline is not there, or knows none of the labels.
    """
    try:
        import spacy
    except ImportError:
        raise MissingDependencyError("spacy", "ner", "finding names by a model") from None
    try:
        model = spacy.load(pipeline, exclude=_UNUSED)
    except OSError as error:
        said = str(error).partition("\n")[0]
        raise ConfigError(
            f"pii.ner: {pipeline!r} is no spaCy pipeline ({said[:120]}); pip install one"
        ) from None
    known = {label for _, component in model.pipeline for label in getattr(component, "labels", ())}
    if not known & set(labels):
        raise ConfigError(
            f"pii.ner_labels: {pipeline} knows none of {', '.join(labels)}; it has {', '.join(sorted(known))}"
        )

    def find(text: str) -> Iterator[Span]:
        for entity in model(text.replace(FOUND, " ")).ents:
            if entity.label_ in labels and any(letter.isalpha() for letter in entity.text):
                yield entity.start_char, entity.end_char, " ".join(entity.text.casefold().split())

    return find
