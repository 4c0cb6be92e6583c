"""How well personal data is found: precision and recall by kind, where everything has a neighbour.

    python benchmarks/personal_data.py [TEXTS [FIRST_SEED [SEEDS]]] [--presidio] [--faults N]

The texts are those of `tests/trace_personal_data.py`. A finding counts as found when all of its letters and
digits are masked; what is masked beside the findings counts against precision, by the kind that it was taken
for. Presidio's pattern recognisers (no language model) see the same texts, with its own defaults. The finder
was developed on seeds 0 to 9; the figures in RESULTS.md are of seeds 100 to 104.
"""

import argparse
from collections import defaultdict

from vertigym.tests.trace_personal_data import KINDS, REGIONS, Finder, Score, measured


def ours() -> Finder:
    """Our masker, which knows the phone numbers of the five countries."""
    from vertigym.traces.pii.masker import Masker

    masker = Masker(regions=REGIONS)
    return lambda text: [(start, end, kind) for start, end, kind, _ in masker.find(text)]


def presidios() -> Finder:
    """Presidio's pattern recognisers; the language model that its names and places need is left out."""
    from presidio_analyzer import RecognizerRegistry

    entities = {
        "EMAIL_ADDRESS": "email", "IBAN_CODE": "iban", "CREDIT_CARD": "card", "PHONE_NUMBER": "phone",
        "IP_ADDRESS": "ip", "US_SSN": "national_id", "US_ITIN": "national_id", "ES_NIF": "national_id",
        "ES_NIE": "national_id", "IT_FISCAL_CODE": "national_id",
        "DE_TAX_ID": "national_id", "CRYPTO": "secret",
    }  # fmt: skip
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en", "es", "it", "de", "fr"])
    chosen = {}
    for recognizer in registry.recognizers:
        kinds = [entity for entity in recognizer.supported_entities if entity in entities]
        if kinds and "Spacy" not in type(recognizer).__name__:
            chosen[type(recognizer).__name__] = (recognizer, kinds)

    def find(text: str) -> list[tuple[int, int, str]]:
        results = [
            result
            for recognizer, kinds in chosen.values()
            for result in recognizer.analyze(text, kinds, None) or ()
            if result.score >= 0.4  # between its weak and its medium patterns
        ]
        return [(one.start, one.end, entities[one.entity_type]) for one in results]

    return find


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("texts", type=int, nargs="?", default=2000)
    options.add_argument("first", type=int, nargs="?", default=100)
    options.add_argument("seeds", type=int, nargs="?", default=5)
    options.add_argument("--presidio", action="store_true")
    options.add_argument("--faults", type=int, default=0, help="print so many")
    chosen = options.parse_args()
    finders = {"vertigym": ours()} | ({"presidio": presidios()} if chosen.presidio else {})
    for name, find in finders.items():
        examples: list[str] = []
        total = defaultdict[str, Score](Score)
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            for kind, score in measured(find, seed, chosen.texts, examples).items():
                for field in ("found", "missed", "wrong"):
                    setattr(total[kind], field, getattr(total[kind], field) + getattr(score, field))
        print(f"{name}\n{'kind':12} {'in texts':>9} {'recall':>8} {'precision':>10}")
        for kind in KINDS:
            one = total[kind]
            print(f"{kind:12} {one.found + one.missed:>9,} {one.recall:>8.4f} {one.precision:>10.4f}")
        print("\n".join(examples[: chosen.faults]))


if __name__ == "__main__":
    main()
