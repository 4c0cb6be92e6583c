"""The card of what was held out: what a benchmark built over it can tell, and what it cannot.

`card.md`, beside the rows. Four numbers bound every comparison made on it:

    noise         of calls whose input was logged several times, the share that disagrees with the commonest
                  answer: no model can be seen to be better than 1 - noise
    label noise   the share of wrong labels by confident learning, repeated inputs or not (`label_noise`)
    drift         total variation distance between the labels of train and of a held-out split, 0 to 1
    smallest gap  the least difference between two models' shares of right answers that a test at 5% finds in
                  80% of cases: (z(0.975) + z(0.8)) · sqrt(2 · 0.25 / n), two independent samples at 0.5, the
                  worst case (Fleiss, Levin & Paik 2003, ch. 4)

n counts the units that are held out as a whole: calls of one session or customer are not independent. A
paired comparison on the same calls sees smaller gaps.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import sqrt

from pydantic import Field

from vertigym.core.config import Config
from vertigym.traces.config import ImportConfig
from vertigym.traces.label_noise import LabelNoise
from vertigym.traces.store import Store

_Z = 1.959964 + 0.841621


class HeldOut(Config):
    """What is held out in one split: its calls, the units that they come from, the smallest gap that they
    show."""

    rows: int
    units: int
    smallest_gap: float | None = Field(description="None where nothing is held out")
    drift: float | None = Field(description="None where there are no labels")


class BenchmarkCard(Config):
    """The card. `noise` is None where no input was logged twice, `label_noise` where labels are too few or too
    many; `asked_again` and `judged` count the calls behind them, `suspects` those that others contradict."""

    split_by: str
    noise: float | None
    asked_again: int
    label_noise: float | None
    judged: int
    suspects: int
    held_out: dict[str, HeldOut]

    def markdown(self, spans: Mapping[str, tuple[float | None, float | None]]) -> str:
        """The card for people; `spans` has the first and the last time of each split."""
        lines = ["# What is held out", "", f"Split by {self.split_by}.", ""]
        lines += [
            "| split | calls | units | from | to | smallest gap | drift |",
            "|---|---|---|---|---|---|---|",
        ]
        for split, part in self.held_out.items():
            first, last = (_day(time) for time in spans.get(split, (None, None)))
            lines.append(
                f"| {split} | {part.rows:,} | {part.units:,} | {first} | {last} "
                f"| {_percent(part.smallest_gap)} | {_percent(part.drift)} |"
            )
        noise = "No input was logged twice, so the labels' noise is not known."
        if self.noise is not None:
            noise = (
                f"Of {self.asked_again:,} calls whose input was logged several times, {self.noise:.1%} "
                f"disagree with the commonest answer: above {1 - self.noise:.1%}, models cannot be told apart."
            )
        wrong = "There are no labels with calls enough to say how many are wrong."
        if self.label_noise is not None:
            wrong = (
                f"By confident learning over {self.judged:,} calls, {self.label_noise:.1%} of the labels are "
                f"wrong; suspects.jsonl names {self.suspects:,} calls that the others contradict. This is an "
                "estimate by words: where they do not tell labels apart, it means little."
            )
        gap = (
            "A difference below the smallest gap says nothing; a paired test on the same calls sees somewhat "
            "smaller ones. The card knows nothing of what users asked outside of this log."
        )
        return "\n".join([*lines, "", noise, "", wrong, "", gap, ""])


def benchmark_card(store: Store, config: ImportConfig, judged: LabelNoise | None) -> BenchmarkCard:
    """The card of the splits in the store."""
    total, wrong = store.db.execute("""
        WITH copies AS (
            SELECT kept AS row, count(*) AS n FROM fate WHERE step = 'exact duplicates' GROUP BY kept
        ), answers AS (
            SELECT asked, answer, sum(1 + coalesce(n, 0)) AS calls FROM calls
            LEFT JOIN copies USING (row)
            WHERE row NOT IN (SELECT row FROM fate WHERE step IN ('exact duplicates', 'superseded',
            'contaminated')) GROUP BY asked, answer
        ), inputs AS (SELECT sum(calls) AS calls, max(calls) AS top FROM answers GROUP BY asked HAVING
        sum(calls) > 1) SELECT coalesce(sum(calls), 0), coalesce(sum(calls - top), 0) FROM inputs
    """).fetchone()
    held = {split: _held_out(store, config, split) for split in ("eval", "test")}
    return BenchmarkCard(
        split_by=config.split.by,
        noise=round(int(wrong) / int(total), 6) if total else None,
        asked_again=int(total),
        label_noise=judged.share if judged else None,
        judged=judged.calls if judged else 0,
        suspects=len(judged.suspects) if judged else 0,
        held_out=held,
    )


def _held_out(store: Store, config: ImportConfig, split: str) -> HeldOut:
    column = config.split.by if config.split.by in ("customer", "session", "cluster") else "session"
    rows, units = store.db.execute(
        f"""SELECT count(*), count(DISTINCT
            CASE WHEN {column} <> '' THEN '{column} ' || {column} ELSE 'input ' || grp END)
        FROM alive JOIN splits USING (row) JOIN inputs USING (row) WHERE split = $1""",
        [split],
    ).fetchone()
    return HeldOut(
        rows=rows,
        units=units,
        smallest_gap=round(min(1.0, _Z * sqrt(0.5 / units)), 6) if units else None,
        drift=_drift(store, split),
    )


def _drift(store: Store, split: str) -> float | None:
    """Half of the sum of the differences between the shares of each label in train and in the split."""
    found = store.db.execute(
        """WITH shares AS (
            SELECT label, count(*) FILTER (WHERE split = 'train') AS a, count(*) FILTER (WHERE split = $1) AS b
            FROM alive JOIN splits USING (row) WHERE label IS NOT NULL GROUP BY label
        ) SELECT sum(abs(a / nullif((SELECT sum(a) FROM shares), 0) - b / nullif((SELECT sum(b) FROM shares),
        0))) / 2 FROM shares""",
        [split],
    ).fetchone()[0]
    return None if found is None else round(float(found), 6)


def _day(time: float | None) -> str:
    return "-" if time is None else datetime.fromtimestamp(time, UTC).date().isoformat()


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
