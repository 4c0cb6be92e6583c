"""The steps between reading and writing, each a statement over the store that lets rows leave:

equal calls → superseded calls → conflicts → near-duplicates → splits → held-out inputs seen before → balance

Conflicts come before near-duplicates, of which one wording stays: the other may be the one answered twice.
"""

from collections.abc import Iterator
from typing import Any

from vertigym.core.errors import DataError
from vertigym.core.types import Split
from vertigym.traces.config import ImportConfig
from vertigym.traces.near_duplicates import find_near
from vertigym.traces.store import Store
from vertigym.traces.topics import find_topics

_UNITS = {  # what a call is held out with; a session is never torn
    "input": ("session",),
    "session": ("session",),
    "customer": ("customer", "session"),
    "cluster": ("cluster", "customer", "session"),
}
_WITHOUT = {
    "time": "they are train",
    "customer": "each is held out by its session or its input",
    "session": "each is held out by its input",
    "cluster": "each is held out by its customer, its session or its input",
}
_SLACK = 1.25  # a unit may overfill its split by this factor


def drop_equal(store: Store, config: ImportConfig) -> None:
    """Equal calls, of which the first stays; calls written again with feedback, of which the last stays."""
    if config.duplicates.exact:
        store.drop(
            "exact duplicates",
            """SELECT row, kept, 1.0 AS overlap FROM (
                SELECT row, min(row) OVER (PARTITION BY content, verdict) AS kept FROM alive
            ) WHERE row > kept""",
        )
        store.drop(
            "superseded",
            """SELECT row, kept, 1.0 AS overlap FROM (
                SELECT row, max(row) OVER (PARTITION BY id, content) AS kept FROM alive
            ) WHERE row < kept""",
        )


def settle_conflicts(store: Store, config: ImportConfig) -> int:
    """Find inputs with several answers (table `conflicts`: asked, answer, first, calls, top), and settle them
    as configured. How many such inputs there are."""
    store.db.execute("""
        CREATE OR REPLACE TABLE conflicts AS
        WITH copies AS (
            SELECT kept AS row, count(*) AS n FROM fate WHERE step = 'exact duplicates' GROUP BY kept
        ), answers AS (
            SELECT asked, answer, min(row) AS first, sum(1 + coalesce(n, 0)) AS calls
            FROM alive LEFT JOIN copies USING (row) GROUP BY asked, answer
        )
        SELECT *, max(calls) OVER (PARTITION BY asked) AS top FROM answers
        QUALIFY count(*) OVER (PARTITION BY asked) > 1
    """)
    lost = {
        "drop": "SELECT asked, answer FROM conflicts",
        "majority": """SELECT asked, answer FROM (
            SELECT *, count(*) FILTER (WHERE calls = top) OVER (PARTITION BY asked) AS winners FROM conflicts
        ) WHERE calls < top OR winners > 1""",
    }.get(config.conflicts.do)
    if lost:
        store.drop(
            "label conflicts",
            f"""SELECT row, NULL AS kept, NULL AS overlap
            FROM alive SEMI JOIN ({lost}) AS lost USING (asked, answer)""",
        )
    return store.count("(SELECT DISTINCT asked FROM conflicts)")


def conflicts(store: Store) -> Iterator[list[tuple[int, int]]]:
    """For each input with several answers: (first row with that answer, how many calls), the most frequent
    first."""
    sql = """
        SELECT list([first, calls] ORDER BY calls DESC, first) FROM conflicts GROUP BY asked ORDER BY min(first)
    """
    for batch in store.select(sql):
        for (pairs,) in batch:
            yield [(int(row), int(calls)) for row, calls in pairs]


def drop_near(store: Store, config: ImportConfig) -> None:
    """Near-duplicates, of which the first stays. Fills the table `inputs` (row, grp): equal and near-equal
    inputs have one group."""
    store.db.execute("CREATE OR REPLACE TABLE alike (row UINTEGER, grp UINTEGER)")
    if config.duplicates.near:
        find_near(store, config.duplicates, config.seed)
        store.drop("near-duplicates", "SELECT row, kept, overlap FROM near SEMI JOIN alive USING (row)")
    store.db.execute("""
        CREATE OR REPLACE TABLE inputs AS
        SELECT row, coalesce(alike.grp, min(row) OVER (PARTITION BY question)) AS grp
        FROM alive LEFT JOIN alike USING (row)
    """)


def find_groups(store: Store, config: ImportConfig) -> list[str]:
    """Fill the table `topics` (row, topic); the words of each, none where no topics are asked for."""
    store.db.execute("CREATE OR REPLACE TABLE topics (row UINTEGER, topic INTEGER)")
    return find_topics(store, config.split.topics, config.seed) if config.split.topics else []


def assign_splits(store: Store, config: ImportConfig) -> list[str]:
    """Fill the table `splits` (row, split), drop held-out rows whose input an earlier split has. Remarks."""
    store.db.execute("CREATE OR REPLACE TABLE splits (row UINTEGER, split VARCHAR)")
    by, named = config.split.by, {"time": "time IS NOT NULL"}.get(config.split.by, f"{config.split.by} <> ''")
    missing = 0 if by == "input" else store.count(where=f"NOT ({named})")
    if missing and missing == store.count():
        raise DataError(f"split by {by}: no call says its {by}; --map {by}=COLUMN names where it stands")
    notes = _by_time(store, config) if by == "time" else _by_unit(store, config)
    notes += [f"{missing} calls have no {by}: {_WITHOUT[by]}"] if missing else []
    store.drop(
        "seen in an earlier split",
        """WITH placed AS (
            SELECT row, grp, list_position(['train', 'eval', 'test'], split) AS rank
            FROM splits JOIN inputs USING (row)
        )
        SELECT row, kept, NULL AS overlap FROM (
            SELECT row, rank, min(rank) OVER same AS least, arg_min(row, (rank, row)) OVER same AS kept
            FROM placed WINDOW same AS (PARTITION BY grp)
        ) WHERE rank > least""",
    )
    return notes


def _by_time(store: Store, config: ImportConfig) -> list[str]:
    """The newest calls are the test, those before them the eval; calls at one moment stay together, and those
    of a session stand where its last call stands: train has nothing that is newer than what is held out."""
    store.db.execute("""
        CREATE OR REPLACE TABLE times AS
        SELECT row, CASE WHEN session = '' THEN time ELSE max(time) OVER (PARTITION BY session) END AS time
        FROM alive
    """)
    timed = store.count("times", "time IS NOT NULL")
    bounds: list[Any] = []
    for held in (config.split.eval + config.split.test, config.split.test):
        at = timed - round(held * timed)
        order = f"SELECT time FROM times WHERE time IS NOT NULL ORDER BY time LIMIT 1 OFFSET {at}"
        found = store.db.execute(order).fetchone()
        bounds.append(found[0] if found else float("inf"))
    store.db.execute(
        """INSERT INTO splits SELECT row,
            CASE WHEN time IS NULL OR time < $1 THEN 'train' WHEN time < $2 THEN 'eval' ELSE 'test' END
        FROM times""",
        bounds,
    )
    return []


def _by_unit(store: Store, config: ImportConfig) -> list[str]:
    """Whole units at random until the held-out splits are full, of each topic by itself; one too large for
    the rest is passed over."""
    names = _UNITS[config.split.by]
    cases = " ".join(f"WHEN {name} <> '' THEN '{name} ' || {name}" for name in names)
    units = f"SELECT row, CASE {cases} ELSE 'input ' || grp END AS unit FROM alive JOIN inputs USING (row)"
    store.db.execute(f"""
        CREATE OR REPLACE TABLE units AS
        SELECT unit, count(*) AS n, coalesce(mode(topic), -1) AS topic
        FROM ({units}) AS units LEFT JOIN topics USING (row) GROUP BY unit
    """)
    store.db.execute("CREATE OR REPLACE TABLE held (unit VARCHAR, split VARCHAR)")
    sizes = store.db.execute("SELECT topic, sum(n) FROM units GROUP BY topic ORDER BY topic").fetchall()
    shares: list[tuple[Split, float]] = [("test", config.split.test), ("eval", config.split.eval)]
    goals = {(split, topic): round(share * int(size)) for split, share in shares for topic, size in sizes}
    filled = dict.fromkeys(goals, 0)
    order = f"SELECT unit, n, topic FROM units ORDER BY md5('{config.seed} ' || unit), unit"
    for batch in store.select(order):
        taken: list[tuple[str, str]] = []
        for name, size, topic in batch:
            for split, _ in shares:
                goal, has = goals[split, topic], filled[split, topic]
                if has < goal and has + size <= max(_SLACK * goal, 1):
                    filled[split, topic] += size
                    taken.append((name, split))
                    break
        store.insert("held", taken)
    notes = []
    for split, share in shares:
        wanted = round(share * sum(int(size) for _, size in sizes))
        if wanted and not any(n for (of, _), n in filled.items() if of == split):
            notes.append(_smallest(store, config, split, wanted))
    store.db.execute(f"""
        INSERT INTO splits
        SELECT row, coalesce(split, 'train') FROM ({units}) AS units LEFT JOIN held USING (unit)
    """)
    return notes


def _smallest(store: Store, config: ImportConfig, split: Split, goal: int) -> str:
    """Where no unit is small enough, the smallest is held out, if two others are left for train."""
    free = store.db.execute(
        "SELECT unit, n FROM units ANTI JOIN held USING (unit) ORDER BY n, unit LIMIT 3"
    ).fetchall()
    if len(free) < 3:
        return f"{split} is empty: there are too few of what is split by ({config.split.by})"
    store.insert("held", [(free[0][0], split)])
    return f"{split} has {free[0][1]} calls, {goal} were wanted: no {config.split.by} is smaller"


def balance(store: Store, config: ImportConfig) -> None:
    """Drop train rows above the limit of their label, at random."""
    if config.balance.max_per_label:
        store.drop(
            "balance",
            f"""SELECT row, NULL AS kept, NULL AS overlap FROM (
                SELECT row, row_number() OVER (
                    PARTITION BY answer ORDER BY md5('{config.seed} ' || row), row
                ) AS n FROM alive JOIN splits USING (row) WHERE split = 'train' AND label IS NOT NULL
            ) WHERE n > {config.balance.max_per_label}""",
        )
