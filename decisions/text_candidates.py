"""Texts for conditions about a part of a text: what it contains, begins or ends with, matches, is cut or joined
into.

Each is an inverse by construction: a literal that must stand inside is put at the start, in the middle and at
the end of another text; one that a text must be cut into is joined again; one that texts are joined into is
cut; a pattern is walked through once, each choice in turn.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, permutations, product
from typing import Protocol

from vertigym.decisions.expressions import Atom, Wrapper
from vertigym.decisions.pattern_examples import examples

_MOST = 60  # texts made for one field by one way
_PIECES, _FEW = 8, 3  # pieces that are joined with each other; of these, with all others
_LONGEST = 24  # characters of a joined text that is cut everywhere
_AROUND = "ab"
_PARTS = ("1", "2")  # of a text that is cut where nobody says into what: a version, perhaps


class Literals(Protocol):
    """Literals that a name computed from a text is compared with."""

    numbers: set[float]
    strings: set[str]


@dataclass(slots=True)
class TextHints:
    """What is asked of parts of a text: `inside` are texts that it contains, begins or ends with, `patterns`
    what it matches, `marks` where it is cut, `pieces` what it is cut into, `glue` and `joined` what it is
    joined with, and into."""

    inside: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)
    pieces: set[str] = field(default_factory=set)
    glue: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return any((self.inside, self.patterns, self.marks, self.joined))

    def add(self, atom: Atom, wrapper: Wrapper) -> None:
        """What an atom says of a text inside the call `wrapper`."""
        match wrapper:
            case "text":
                self.inside |= set(atom.strings)
            case "pattern":
                self.patterns |= set(atom.strings)
            case "split":
                for text in atom.strings:
                    is_mark = not any(map(str.isalnum, _plain(text)))
                    (self.marks if is_mark else self.pieces).add(_plain(text) if is_mark else text)
                self.pieces |= set(_written(atom.numbers))
            case "" if any(0 <= n <= _LONGEST for n in atom.numbers):  # a part of a text, by its place
                self.inside |= set(atom.strings)
        for text in atom.strings if atom.joins else ():
            is_glue = not atom.compares or any(text in other and text != other for other in atom.strings)
            (self.glue if is_glue else self.joined).add(text)

    def near(self) -> Iterator[str]:
        """Texts that meet, or just fail, what is asked of their parts."""
        for text in sorted(self.inside):
            yield from (
                text,
                f"{text}{_AROUND}",
                f"{_AROUND}{text}",
                f"{_AROUND}{text}{_AROUND}",
                text.swapcase(),
            )
        yield from (f"{a}-{b}" for a, b in islice(permutations(sorted(self.inside), 2), _MOST))
        for pattern in sorted(self.patterns):
            yield from islice(examples(pattern), _MOST)
        yield from self._split(self.pieces or _PARTS)
        yield from self._parted(self.joined, everywhere=False)

    def wide(self, passed_down: Literals) -> Iterator[str]:
        """Texts for what a name computed from this one is compared with, and parts of joined texts."""
        yield from self._split({*passed_down.strings, *_written(passed_down.numbers)})
        yield from self._parted(self.joined | (passed_down.strings if self.glue else set()), everywhere=True)

    def _parted(self, texts: Collection[str], *, everywhere: bool) -> Iterator[str]:
        """The parts of joined texts: between what they are joined with, or cut `everywhere`."""
        for text in sorted(texts):
            for mark in sorted(filter(None, self.glue)):
                yield from text.split(mark) if mark in text else ()
            for at in range(1, min(len(text), _LONGEST)) if everywhere else ():
                yield from (text[:at], text[at:])

    def _split(self, pieces: Collection[str]) -> Iterator[str]:
        """The pieces joined at each mark: one everywhere, so that its place is no matter, and two beside each
        other."""
        ordered = sorted(pieces, key=lambda piece: (len(piece), piece))
        for mark in sorted(self.marks):
            yield from (mark.join([piece] * 3) for piece in ordered)
            yield from islice(map(mark.join, product(ordered[:_PIECES], repeat=2)), _MOST)
            yield from islice(map(mark.join, product(ordered[_PIECES:], ordered[:_FEW])), _MOST)


def _plain(text: str) -> str:
    """A mark as it stands in a text: FEEL cuts at patterns."""
    return text.replace("\\", "")


def _written(numbers: Collection[float] | Sequence[float]) -> list[str]:
    """Numbers and those beside them as texts."""
    return [f"{n + shift:g}" for n in numbers for shift in (-1, 0, 1) if n + shift >= 0]
