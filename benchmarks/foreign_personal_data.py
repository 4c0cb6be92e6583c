"""How well personal data is found in texts by somebody else: the sentences of presidio-evaluator.

    python benchmarks/foreign_personal_data.py [SENTENCES [SEED]] [--faults N]        # needs presidio-evaluator

Its templates and its fakers (Microsoft's, for measuring Presidio) say what is personal and where. A finding is
found when every letter and digit of it is masked, whatever it is taken for; what is masked although nobody
planted anything there counts against precision, by the kind that it was taken for. In brackets: recall of what
can be valid, for its fakers also draw phone numbers that no network has.
"""

import argparse
from collections import Counter

import phonenumbers

from vertigym.traces.pii.masker import Masker

KINDS = {
    "EMAIL_ADDRESS": "email", "IBAN_CODE": "iban", "CREDIT_CARD": "card", "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip", "US_SSN": "national_id",
}  # fmt: skip


def dialled(value: str) -> bool:
    """Whether a number can be dialled, in the United States or with its country's code."""
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(value, "US"))
    except phonenumbers.NumberParseException:
        return False


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("sentences", type=int, nargs="?", default=3000)
    options.add_argument("seed", type=int, nargs="?", default=7)
    options.add_argument("--faults", type=int, default=0, help="print so many")
    chosen = options.parse_args()
    from presidio_evaluator.data_generator import PresidioSentenceFaker

    maker = PresidioSentenceFaker("en_US", lower_case_ratio=0.05)
    maker._sentence_faker.seed_instance(chosen.seed)
    masker = Masker(regions=("US",))
    planted, found, valid, valid_found, wrong = (Counter[str]() for _ in range(5))
    faults: list[str] = []
    for sentence in maker.generate_new_fake_sentences(num_samples=chosen.sentences):
        text, spans = sentence.full_text, sentence.spans
        masked = masker.find(text)
        for span in spans:
            if (kind := KINDS.get(span.entity_type)) is None:
                continue
            places = {i for i in range(span.start_position, span.end_position) if text[i].isalnum()}
            hit = places <= {i for start, end, *_ in masked for i in range(start, end)}
            planted[kind] += 1
            found[kind] += hit
            real = kind != "phone" or dialled(text[span.start_position : span.end_position])
            valid[kind] += real
            valid_found[kind] += hit and real
            if not hit:
                faults.append(
                    f"missed {kind}: {text[span.start_position : span.end_position]} in: {text[:100]!r}"
                )
        for start, end, kind, _ in masked:
            if all(end <= span.start_position or span.end_position <= start for span in spans):
                wrong[kind] += 1
                faults.append(f"wrong {kind}: {text[start:end]} in: {text[:100]!r}")
    for kind in KINDS.values():
        precision = found[kind] / max(1, found[kind] + wrong[kind])
        print(
            f"{kind:12} {planted[kind]:>6,}  recall {found[kind] / max(1, planted[kind]):.4f}  "
            f"({valid[kind]:,} valid: {valid_found[kind] / max(1, valid[kind]):.4f})  precision {precision:.4f}"
        )
    print("\n".join(faults[: chosen.faults]))


if __name__ == "__main__":
    main()
