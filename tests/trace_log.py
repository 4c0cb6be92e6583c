"""A product's log, made up: seeded, as realistic as it needs to be, and every fault in it is known.

A support desk serves 20 shops. Each call sorts a message into an intent, or answers it. The mix of intents
and the products drift over a year. Into the log go repeated calls, calls that are nearly the same, personal
data (and numbers that only look like it), inputs answered in two ways, and broken lines; `Planted` says
where.

    python tests/trace_log.py FOLDER [CALLS [BENCHMARK.jsonl]]     writes one to look at
"""

import json
import random
import re
import string
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from vertigym.core.seeds import derive
from vertigym.tests.trace_shapes import BROKEN, SHAPES, Draft
from vertigym.tests.trace_words import (
    ASKS,
    CLOSERS,
    DID,
    FIRST,
    INTENTS,
    LAST,
    MAILS,
    OPENERS,
    SYLLABLES,
    WHAT,
    WHEN,
    WHERE,
    WHO,
)

START, YEAR = 1767225600.0, 365 * 86400
NEARLY = (
    0.75  # of the runs of five characters that either of two messages has, both do: they are nearly the same
)


@dataclass
class Planted:
    """Where everything is. A place is (file name, line)."""

    files: list[Path] = field(default_factory=list)
    calls: int = 0
    broken: dict[tuple[str, int], str] = field(default_factory=dict)  # place -> kind of fault
    content: dict[tuple[str, int], int] = field(default_factory=dict)  # place -> equal calls share a number
    family: dict[tuple[str, int], int] = field(
        default_factory=dict
    )  # place -> nearly equal calls (`NEARLY`) share a number
    conflicts: int = 0
    personal: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # id -> [(kind, as written)]
    decoys: dict[str, list[str]] = field(default_factory=dict)  # id -> what must stay
    feedback: int = 0
    benchmark: dict[str, int] = field(default_factory=dict)  # id -> number of the benchmark's text
    names: tuple[str, ...] = (*FIRST, *(f"{a} {b}" for a in FIRST for b in LAST))


def shared_runs(left: str, right: str) -> float:
    """The Jaccard overlap of two messages' runs of five characters, capitals and punctuation aside."""
    one, other = (
        {words[i : i + 5] for i in range(len(words) - 4)}
        for words in (" ".join(re.findall(r"\w+", text.lower())) for text in (left, right))
    )
    return len(one & other) / len(one | other)


class Log:
    """Writes the log into a folder, `calls` lines of calls in four formats, and keeps what it planted. Each shop's
    system message has `policy` sentences more."""

    def __init__(
        self, folder: Path, calls: int, seed: int = 0, benchmark: Sequence[str] = (), policy: int = 0
    ) -> None:
        self.random = random.Random(derive(seed, "trace log"))
        self.planted = Planted(calls=calls + len(benchmark))
        self.products = [[self._word(3) for _ in range(12)] for _ in range(20)]
        said = random.Random(derive(seed, "policies"))
        self._policies = [
            "".join(
                f" When {said.choice(WHO)} {said.choice(DID)} {said.choice(WHAT)}, say so."
                for _ in range(policy)
            )
            for _ in self.products
        ]
        self._pool: list[Draft] = []
        self._people = [self._person() for _ in range(max(20, calls // 12))]
        self._conflicting: set[int] = set()
        self._contents: dict[tuple[str, str, str], int] = {}
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        names = ("calls.jsonl", "chats.jsonl", "served.jsonl", "spans.jsonl")
        self.planted.files = [folder / name for name in names]
        at = sorted(self.random.sample(range(calls + len(benchmark)), len(benchmark)))
        planted_at = dict(zip(at, self.random.sample(range(len(benchmark)), len(benchmark)), strict=True))
        opened = [file.open("w", encoding="utf-8", newline="\n") for file in self.planted.files]
        self._lines = [0, 0, 0, 0]
        try:
            for number in range(calls + len(benchmark)):
                progress = number / (calls + len(benchmark))
                if number in planted_at:
                    self._write(
                        opened,
                        self._wrapped(benchmark[planted_at[number]], progress),
                        progress,
                        planted_at[number],
                    )
                else:
                    self._write(opened, self._next(progress), progress)
                if self.random.random() < 0.003:
                    self._break(opened)
        finally:
            for file in opened:
                file.close()
        self.planted.conflicts = len(self._conflicting)

    # -- what is said

    def _next(self, progress: float) -> Draft:
        """A call: a new one, or an earlier one again in one of three ways."""
        dice = self.random.random()
        if self._pool and dice < 0.09:
            old = self.random.choice(self._pool)
            if dice < 0.04:
                return old
            if dice < 0.08:
                return self._nearly(old)
            if old.intent == old.completion and old.family not in self._conflicting:
                self._conflicting.add(old.family)
                other = self.random.choice([i for i in INTENTS if i != old.intent])
                return Draft(
                    **{
                        **vars(old),
                        "completion": other,
                        "intent": other,
                        "family": self._id(),
                    }
                )
        new = self._new(progress)
        self._pool.append(new)
        if len(self._pool) > 4000:
            self._pool.pop(self.random.randrange(2000))
        return new

    def _new(self, progress: float) -> Draft:
        pick = self.random.choice
        customer = self.random.randrange(20 if progress > 0.4 else 15)  # five customers join later
        weights = [1 + 2 * progress * i / 7 + 2 * (1 - progress) * (7 - i) / 7 for i in range(8)]
        intent = self.random.choices(INTENTS, weights)[0]
        recent = 4 + int(8 * progress)
        product = pick(self.products[customer][max(0, recent - 6) : recent])
        ask = pick(ASKS[intent]).format(p=product)
        details = [
            f"{pick(WHO)} {pick(DID)} {pick(WHAT)} {pick(WHERE)} {pick(WHEN)}.".capitalize()
            for _ in range(self.random.randint(2, 4))
        ]
        body = [pick(OPENERS), f"{ask}, order {self._digits(10)}.", *details, pick(CLOSERS)]
        personal, fixed, decoys = self._private()
        task = f"You work for shop {customer}.{self._policies[customer]}"
        if customer % 2:
            completion = intent
            task += f" Sort the message into one of: {', '.join(INTENTS)}."
        else:
            told = (
                f"{pick(WHO)} will look for {pick(WHAT)} {pick(WHERE)}, as you wrote it happened {pick(WHEN)}"
            )
            completion = (
                f"We are sorry about the {product}. {told.capitalize()}. Your case is {self._digits(7)}."
            )
            task += " Answer the customer."
        return Draft(customer, intent, task, body, fixed, completion, personal, decoys, self._id())

    def _nearly(self, old: Draft) -> Draft:
        """The same message, as people and programs write it again: most of its letters in a row stay."""
        while True:
            new = Draft(**{**vars(old), "body": self._rewritten(old)})
            if shared_runs(old.text, new.text) >= NEARLY:
                return new

    def _rewritten(self, old: Draft) -> list[str]:
        body = list(old.body)
        at = self.random.randrange(1, len(body) - 1)
        how = self.random.randrange(6)
        if how == 0:  # a typing error
            body[at] = self._typo(body[at])
        elif how == 1:
            body = [sentence.upper() for sentence in body]
        elif how == 2:
            body[0] = self.random.choice([o for o in OPENERS if o != body[0]])
            body[-1] = self.random.choice(CLOSERS)
        elif how == 3:
            body[1] = body[1][: -len("0123456789.")] + self._digits(10) + "."
        elif how == 4:
            body = [sentence.replace(" ", "  ").replace(".", "!!") for sentence in body]
        else:
            body[-1] += " Sent from my phone"
        return body

    def _typo(self, text: str) -> str:
        letters = (
            i
            for i in range(1, len(text) - 2)
            if text[i : i + 2].isalpha() and text[i].lower() != text[i + 1].lower()
        )
        at = self.random.choice(list(letters))
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]

    def _private(self) -> tuple[list[tuple[str, str]], list[str], list[str]]:
        """Personal data for one message in five, numbers that only look like it for another."""
        dice = self.random.random()
        if dice < 0.2:
            email, phone, card, iban, name = self.random.choice(self._people)
            options = [
                ("email", self.random.choice((email, email.upper())), "Write to {}."),
                ("phone", self._spelt(phone), "My number is {}, call me."),
                ("card", self._grouped(card, 4), "I paid with {} in the shop."),
                ("iban", self._grouped(iban, 4), "Send it to {} please."),
                ("name", name, "This is {} speaking."),
            ]
            chosen = self.random.sample(options, self.random.randint(1, 3))
            return [(k, v) for k, v, _ in chosen], [form.format(v) for _, v, form in chosen], []
        if dice < 0.4:
            decoy = self.random.choice(
                (
                    f"Tracking {self._bad_card()}.",
                    f"Reference DE00{self._digits(18)}.",
                    f"Bought on {self.random.randint(10, 28)}.0{self.random.randint(1, 9)}.2026 at 10:{self.random.randint(10, 59)}.",
                    f"Device 10.0.{self.random.randint(0, 255)}.{self.random.randint(0, 255)} is offline.",
                    f"Paid 1,{self._digits(3)}.{self._digits(2)} EUR, item {self._digits(8)}.",
                    f"I will mark box {self._digits(9)} as broken.",
                    f"Ask @{self._word(3)} on the forum.",
                )
            )
            return [], [decoy], [decoy]
        return [], [], []

    def _wrapped(self, text: str, progress: float) -> Draft:
        """A benchmark's question as it turns up in logs."""
        words = text.split()
        how = self.random.randrange(5)
        if how == 0:
            body = ["Homework help:", text, "Show your steps."]
        elif how == 1:
            body = [text.lower().replace(",", "").replace(".", "")]
        elif how == 2:
            words[self.random.randrange(len(words))] = self._word(2)
            body = ["  ".join(words)]
        elif how == 3:
            body = [f"My son got this: > {text} < and I am stuck.", *self._new(progress).body[2:4]]
        else:
            body = [text]
        return Draft(
            self.random.randrange(15), "other", "You help.", body, [], "Let me see.", [], [], self._id()
        )

    # -- values

    def _person(self) -> tuple[str, str, str, str, str]:
        first, last = self.random.choice(FIRST), self.random.choice(LAST)
        email = f"{first}.{last}{self._digits(5)}@{self.random.choice(MAILS)}".lower()
        code, rest = self.random.choice(
            (("49", 9), ("44", 9), ("1", 9), ("33", 8))
        )  # as long as each land's are
        phone = f"{code}{self.random.randint(2, 9)}{self._digits(rest)}"
        card = self._luhn("4" + self._digits(14))
        iban = _iban("DE", self._digits(18))
        return email, phone, card, iban, f"{first} {last}"

    def _spelt(self, phone: str) -> str:
        area = 2 if phone.startswith("33") else len(phone) - 10
        rest = f"{phone[:area]} {phone[area:-7]} {phone[-7:-4]} {phone[-4:]}"
        return self.random.choice((f"+{phone}", f"+{rest}", f"00{phone}", "+" + rest.replace(" ", "-")))

    def _grouped(self, value: str, size: int) -> str:
        groups = [value[i : i + size] for i in range(0, len(value), size)]
        return self.random.choice((value, " ".join(groups)))

    def _luhn(self, digits: str) -> str:
        total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(digits)))
        return digits + str(-total % 10)

    def _bad_card(self) -> str:
        card = self._luhn("4" + self._digits(14))
        return card[:-1] + str((int(card[-1]) + self.random.randint(1, 9)) % 10)

    def _digits(self, n: int) -> str:
        return str(self.random.randint(1, 9)) + "".join(self.random.choices(string.digits, k=n - 1))

    def _word(self, syllables: int) -> str:
        return "".join(self.random.choices(SYLLABLES, k=syllables))

    def _id(self) -> int:
        self._count += 1
        return self._count

    # -- how it is written

    def _write(
        self, opened: Sequence[TextIO], draft: Draft, progress: float, benchmark: int | None = None
    ) -> None:
        to = self.random.choices(range(4), (5, 2, 2, 1))[0]
        name = f"call-{self._id()}"
        row = SHAPES[to](draft, name, START + YEAR * progress)
        place = self._line(opened, to, json.dumps(row))
        said = (draft.system, draft.text, draft.completion)
        self.planted.content[place] = self._contents.setdefault(said, len(self._contents))
        self.planted.family[place] = draft.family
        if draft.personal:
            self.planted.personal[name] = draft.personal
        if draft.decoys:
            self.planted.decoys[name] = draft.decoys
        if benchmark is not None:
            self.planted.benchmark[name] = benchmark
        if to == 2 and self._pool and draft is self._pool[-1] and self.random.random() < 0.1:
            self._pool.pop()  # a call with feedback is not repeated: it would not be the same
            thumb = self.random.choice(("up", "down"))
            self._line(opened, 2, json.dumps({"id": name, "feedback": {"thumb": thumb}}))
            self.planted.feedback += 1

    def _line(self, opened: Sequence[TextIO], to: int, text: str) -> tuple[str, int]:
        opened[to].write(text + "\n")
        self._lines[to] += 1
        return self.planted.files[to].name, self._lines[to]

    def _break(self, opened: Sequence[TextIO]) -> None:
        to, how = self.random.randrange(4), self.random.choice(list(BROKEN))
        self.planted.broken[self._line(opened, to, BROKEN[how])] = how


def _iban(country: str, digits: str) -> str:
    rest = int("".join(str(int(c, 36)) for c in digits + country) + "00") % 97
    return f"{country}{98 - rest:02}{digits}"


@dataclass(frozen=True)
class Found:
    """How well something planted was found."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.right + self.missed, 1)


def repeats_found(
    groups: dict[tuple[str, int], int], dropped: set[tuple[str, int]], rows: set[tuple[str, int]]
) -> Found:
    """Of each group of `rows` all but one are to be dropped, whichever they are."""
    members: dict[int, int] = defaultdict(int)
    gone: dict[int, int] = defaultdict(int)
    for place in rows:
        members[groups[place]] += 1
        gone[groups[place]] += place in dropped
    right = sum(min(gone[g], n - 1) for g, n in members.items())
    return Found(right, len(dropped) - right, sum(n - 1 for n in members.values()) - right)


if __name__ == "__main__":
    to = Path(sys.argv[1])
    held = [
        json.loads(line)["question"] for file in sys.argv[3:] for line in Path(file).read_text().splitlines()
    ]
    made = Log(to, int(sys.argv[2]) if len(sys.argv) > 2 else 20_000, benchmark=held[:100]).planted
    (to / "names").write_text("\n".join(made.names) + "\n")
    print(f"{made.calls} calls in {', '.join(str(file) for file in made.files)}; names in {to / 'names'}")
