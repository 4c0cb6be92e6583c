"""Files that mean harm, for every importer: a seeded generator. `hostile_imports.py` runs and judges them."""

import copy
import csv
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

DEEP = 50_000
Make = Callable[[random.Random], bytes]


@dataclass(frozen=True, slots=True)
class HostileFile:
    """A file by its name (the suffix says who reads it), what is in it, and what is wrong with it."""

    name: str
    kind: str
    content: bytes


# Values that hide in otherwise sound files.
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, "", " ", "x" * 10_000, [], {}, [[]], [{}], {"": ""}, "\x00", "\u202e", "9" * 5000,
    "-", "nan", "'", '"', "\\", "${x}", "=1+1", "((((", "a.b.c", "$", "#", "1e999", 10**30, {"a": {"b": None}},
)  # fmt: skip


def table(rng: random.Random, rows: int = 3) -> dict[str, Any]:
    """A small sound decision model (JDM)."""
    inputs = [{"id": "i0", "field": "age"}, {"id": "i1", "field": "kind"}]
    rules = [
        {"_id": str(n), "i0": f"> {n}", "i1": "'a', 'b'", "o0": str(rng.randrange(9))} for n in range(rows)
    ]
    content = {
        "hitPolicy": "first",
        "inputs": inputs,
        "outputs": [{"id": "o0", "field": "fee"}],
        "rules": rules,
    }
    node = {"id": "t", "name": "t", "type": "decisionTableNode", "content": content}
    start = {"id": "in", "name": "in", "type": "inputNode"}
    tests = [{"input": {"age": 2, "kind": "a"}}]
    return {"nodes": [start, node], "edges": [{"id": "e", "sourceId": "in", "targetId": "t"}], "tests": tests}


def mutated(value: Any, rng: random.Random, times: int = 3) -> Any:
    """A copy of a JSON value with some of its parts dropped, doubled or replaced."""
    value = json.loads(json.dumps(value))
    for _ in range(times):
        places = list(_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        match rng.randrange(3):
            case 0:
                holder[key] = copy.deepcopy(rng.choice(NASTY))
            case 1 if isinstance(holder, dict):
                del holder[key]
            case _:
                holder[key] = [holder[key], copy.deepcopy(holder[key])]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list) and item:
            yield from _places(item)


def garbled(data: bytes, rng: random.Random) -> bytes:
    """Cut short, a byte flipped, a part repeated, or another encoding."""
    at = rng.randrange(len(data))
    return rng.choice(
        [
            data[:at],
            data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :],
            data[:at] + data[:at] + data[at:],
            data.decode("utf-8", "replace").encode("utf-16"),
            b"\x00" * 1000 + data,
            b"",
        ]
    )


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


# Decision models.


def cell(text: str, column: str = "i0") -> dict[str, Any]:
    """The model with this text in a cell of its first rule."""
    model = table(random.Random(0))
    model["nodes"][1]["content"]["rules"][0][column] = text
    return model


def script(body: str) -> dict[str, Any]:
    model = table(random.Random(0))
    source = f"export const handler = async (input) => {{ {body} }}"
    model["nodes"].insert(1, {"id": "f", "name": "f", "type": "functionNode", "content": {"source": source}})
    ends = [("in", "f"), ("f", "t")]
    model["edges"] = [{"id": str(i), "sourceId": a, "targetId": b} for i, (a, b) in enumerate(ends)]
    return model


JDM: dict[str, Make] = {
    "parts replaced": lambda rng: encode(mutated(table(rng), rng)),
    "garbled": lambda rng: garbled(encode(table(rng)), rng),
    "lists in lists": lambda rng: b'{"nodes": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "records in records": lambda rng: b'{"nodes": [], "x": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "a number of 6,000 digits": lambda rng: encode(table(rng)).replace(b'"age": 2', b'"age": ' + b"9" * 6000),
    "a number no float holds": lambda rng: encode(cell("> " + "9" * 290 + rng.choice(["", "e300", "." + "9" * 99]))),
    "brackets in brackets": lambda rng: encode(cell("(" * 5000 + "1" + ")" * 5000)),
    "a list in a list in an outcome": lambda rng: encode(cell("[" * DEEP + "]" * DEEP, "o0")),
    "a long condition": lambda rng: encode(cell(" and ".join(["age > 1"] * 30_000))),
    "many literals": lambda rng: encode(cell(", ".join(f"'{n}'" for n in range(6000)), "i1")),
    "a template": lambda rng: encode(cell("`${" * 3000)),
    "quotes": lambda rng: encode(cell("'" * 9999 + '"' * 9999)),
    "a nasty cell": lambda rng: encode(cell(str(rng.choice(NASTY)), rng.choice(["i0", "i1", "o0"]))),
    "a cycle": lambda rng: encode(table(rng) | {"edges": [{"id": "e", "sourceId": "t", "targetId": "t"}]}),
    "edges to nowhere": lambda rng: encode(table(rng) | {"edges": [{"id": "e", "sourceId": "x", "targetId": "y"}] * 99}),
    "two nodes of one id": lambda rng: encode(table(rng) | {"nodes": table(rng)["nodes"] * 3}),
    "tests of another shape": lambda rng: encode(table(rng) | {"tests": [{"input": {"age": {"age": rng.choice(NASTY)}}}] * 9}),
    "a schema of another shape": lambda rng: encode(schema(rng)),
    "a name in a name": lambda rng: encode(cell(".".join(["a"] * 5000) + " > 1")),
    "a script that never ends": lambda rng: encode(script("while (true) {}")),
    "a promise never kept": lambda rng: encode(script("await new Promise(() => {}); return input")),
    "a script that takes all memory": lambda rng: encode(script("const a = []; while (true) a.push(new Array(1e6).fill(1))")),
    "a script with a deep result": lambda rng: encode(script("let a = []; for (let k = 0; k < 1e5; k++) a = [a]; return {a}")),
    "a script that throws": lambda rng: encode(script("throw new Error('\\n'.repeat(9999))")),
    "many rules": lambda rng: encode(table(rng, 1500)),
}  # fmt: skip


def schema(rng: random.Random) -> dict[str, Any]:
    model = table(rng)
    part = {
        "type": rng.choice(["object", "number", 3, []]),
        "properties": rng.choice([{"age": 1}, [1], {"age": {"enum": {}}}]),
    }
    model["nodes"][0]["content"] = {"schema": rng.choice([json.dumps(part), part, "{", "[" * 3000])}
    return model


# DMN.

_DMN = "https://www.omg.org/spec/DMN/20191111/MODEL/"


def dmn(test: str = "< 5", result: str = '"a"', more: str = "", head: str = "", name: str = "n") -> bytes:
    """A small sound DMN document."""
    entry = f"<inputEntry><text>{test}</text></inputEntry><outputEntry><text>{result}</text></outputEntry>"
    body = (
        f"<inputData id='i' name={quoteattr(name)}><variable name={quoteattr(name)} typeRef='number'/></inputData>"
        f"<decision id='d' name='d'><informationRequirement><requiredInput href='#i'/></informationRequirement>"
        f"<decisionTable><input><inputExpression typeRef='number'><text>{name}</text></inputExpression></input>"
        f"<output/><rule>{entry}</rule></decisionTable></decision>{more}"
    )
    return f"{head}<definitions xmlns='{_DMN}' id='m' name='m'>{body}</definitions>".encode()


_BOMB = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 12))
XML: dict[str, Make] = {
    "garbled": lambda rng: garbled(dmn(), rng),
    "billion laughs": lambda rng: dmn("&e11;", head=f"<!DOCTYPE d [<!ENTITY e0 'ha'>{_BOMB}]>"),
    "an outside entity": lambda rng: dmn("&x;", head="<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"),
    "an outside document type": lambda rng: dmn(head="<!DOCTYPE d SYSTEM 'http://127.0.0.1:9/x.dtd'>"),
    "elements in elements": lambda rng: dmn(more="<a>" * DEEP + "</a>" * DEEP),
    "many elements": lambda rng: dmn(more="<a/>" * 900_000),
    "brackets in brackets": lambda rng: dmn("(" * 9000 + "1" + ")" * 9000),
    "minus signs": lambda rng: dmn(result="-" * 90_000 + "1"),
    "sums": lambda rng: dmn(result="1" + " + 1" * 20_000),
    "a number of 6,000 digits": lambda rng: dmn("&lt; " + "9" * 6000),
    "spaces": lambda rng: dmn(" " * 90_000 + "1"),
    "a nasty test": lambda rng: dmn(str(rng.choice(NASTY)).replace("&", "").replace("<", "").replace("\x00", "")),
    "a nasty name": lambda rng: dmn(name=rng.choice(["not", "in", "1", "a" * 9999, "a b  c", "+", "\u202e", "null"])),
    "types in a circle": lambda rng: dmn(more="<itemDefinition name='n'><typeRef>n</typeRef></itemDefinition>").replace(
        b"typeRef='number'", b"typeRef='n'"
    ),
    "decisions in a circle": lambda rng: dmn().replace(b"<requiredInput href='#i'/>", b"<requiredDecision href='#d'/>"),
    "another namespace": lambda rng: dmn().replace(_DMN.encode(), b"urn:x"),
    "an encoding that lies": lambda rng: b"<?xml version='1.0' encoding='utf-16'?>" + dmn(),
}  # fmt: skip


# Tables.


def sheet(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def workbook(cells: str = "", *, more: dict[str, bytes] | None = None, dimension: str = "") -> bytes:
    """A workbook whose only sheet holds this XML below a sound header and rule."""
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["age", "-> fee"], ["> 3", 1]):
        book.active.append(row)
    plain = io.BytesIO()
    book.save(plain)
    made = io.BytesIO()
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename.endswith("sheet1.xml"):
                data = data.replace(b"</sheetData>", cells.encode() + b"</sheetData>")
            new.writestr(part.filename, data)
        for name, data in (more or {}).items():
            new.writestr(name, data)
    return made.getvalue()


ROWS: list[list[Any]] = [["age", "kind", "-> fee"], ["> 3", "a, b", 1], ["<= 3", "", 0]]
CSV: dict[str, Make] = {
    "garbled": lambda rng: garbled(sheet(ROWS), rng),
    "a nasty cell": lambda rng: sheet([ROWS[0], [rng.choice(NASTY), rng.choice(NASTY), rng.choice(NASTY)], *ROWS[1:]]),
    "a number of 6,000 digits": lambda rng: sheet([*ROWS, ["9" * 6000, "", rng.choice([1, "8" * 6000])]]),
    "a fraction of 6,000 digits": lambda rng: sheet([*ROWS, ["1." + "9" * 6000, "", 1]]),
    "a million empty rows": lambda rng: sheet(ROWS) + b"\r\n" * 1_000_000,
    "a hundred thousand columns": lambda rng: sheet([[f"c{n}" for n in range(100_000)], list(range(100_000))]),
    "quotes that never end": lambda rng: b'age,-> fee\n"' + b'a""' * 100_000,
    "a header of quotes": lambda rng: b"'\"" * 50_000 + b"\n1,2\n",
    "commas": lambda rng: sheet([ROWS[0], [",".join(["1"] * 30_000), "", 1]]),
    "brackets in brackets": lambda rng: sheet([ROWS[0], ["(" * 9000, "", 1], ["not(" * 9000, "", 1]]),
    "two columns of one name": lambda rng: sheet([["a", "a", "a"], [1, 2, 3]]),
    "a name that is a word": lambda rng: sheet([[rng.choice(["in", "null", "a.b.c.d", "1", "\u202e", "$"]), "x"], [1, 2]]),
    "no rows": lambda rng: sheet([ROWS[0]]),
    "one cell": lambda rng: b"x",
    "rows of another length": lambda rng: sheet([ROWS[0], [1], [1, 2, 3, 4, 5], []]),
    "a thousand rules": lambda rng: sheet([["n", "-> out"], *([f"<= {n}", f"o{n}"] for n in range(1000))]),
    "a thousand rules in disorder": lambda rng: sheet(
        [["a", "b", "-> out"], *([f"[{(x := rng.randrange(500))}..{x + 40}]", f"t{rng.randrange(9)}", n % 7] for n in range(1000))]
    ),
}  # fmt: skip
XLSX: dict[str, Make] = {
    "garbled": lambda rng: garbled(workbook(), rng),
    "a bomb": lambda rng: workbook(more={"xl/media/zeros": b"\0" * (300 << 20)}),
    "a long cell": lambda rng: workbook(f"<row r='3'><c r='A3' t='inlineStr'><is><t>{'x' * 9_000_000}</t></is></c></row>"),
    "a million empty rows": lambda rng: workbook("".join(f"<row r='{n}'/>" for n in range(3, 500_000))),
    "a cell at the end of the sheet": lambda rng: workbook("<row r='1048576'><c r='XFD1048576'><v>1</v></c></row>"),
    "a number of 6,000 digits": lambda rng: workbook(f"<row r='3'><c r='A3'><v>{'9' * 6000}</v></c></row>"),
    "a number no float holds": lambda rng: workbook("<row r='3'><c r='A3'><v>1e999</v></c><c r='B3'><v>1</v></c></row>"),
    "a cell of no kind": lambda rng: workbook("<row r='3'><c r='A3' t='zz'><v>1</v></c><c r='??'><v>1</v></c></row>"),
    "a shared text that is not there": lambda rng: workbook("<row r='3'><c r='A3' t='s'><v>99</v></c></row>"),
    "not a workbook": lambda rng: zipped({"../../x": b"1", "a": b"2"}),
    "a date of no calendar": lambda rng: workbook("<row r='3'><c r='A3' t='d'><v>9999-99-99</v></c></row>"),
}  # fmt: skip


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as new:
        for name, data in files.items():
            new.writestr(name, data)
    return made.getvalue()


# Logs.

CALL: dict[str, Any] = {
    "request": {"messages": [{"role": "user", "content": "Where is it?"}], "model": "m"},
    "response": {
        "id": "c",
        "created": 1,
        "choices": [{"message": {"role": "assistant", "content": "shipping"}}],
    },
}
SPAN: dict[str, Any] = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
            "scopeSpans": [{"spans": [{"spanId": "s", "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": [
                {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                {"key": "gen_ai.prompt.0.role", "value": {"stringValue": "user"}},
                {"key": "gen_ai.prompt.0.content", "value": {"stringValue": "hi"}},
                {"key": "gen_ai.completion.0.content", "value": {"stringValue": "yes"}},
            ]}]}],
        }
    ]
}  # fmt: skip


def lines(*rows: Any) -> bytes:
    """Rows of a log, among calls that are sound."""
    sound = [{**CALL, "id": f"s{n}"} for n in range(3)]
    return b"\n".join(row if isinstance(row, bytes) else encode(row) for row in (*sound, *rows))


LOGS: dict[str, Make] = {
    "calls with parts replaced": lambda rng: lines(*(mutated(CALL, rng) for _ in range(30))),
    "spans with parts replaced": lambda rng: lines(*(mutated(SPAN, rng) for _ in range(30))),
    "conversations with parts replaced": lambda rng: lines(
        *(mutated({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, rng) for _ in range(30))
    ),
    "feedback of another shape": lambda rng: lines(*(mutated({"id": "s1", "feedback": {"thumb": "up"}}, rng) for _ in range(30))),
    "garbled": lambda rng: garbled(lines(CALL, SPAN), rng),
    "lists in lists": lambda rng: lines(b'{"messages": ' + b"[" * DEEP),
    "a deep row that is whole": lambda rng: lines(b'{"messages": ' + b"[" * 900 + b"]" * 900 + b', "completion": "x"}'),
    "deep metadata": lambda rng: lines({**CALL, "meta": json.loads("[" * 900 + "]" * 900)}),
    "a number of 6,000 digits": lambda rng: lines(b'{"id": ' + b"9" * 6000 + b', "messages": [{"role": "user", "content": "a"}], "completion": "b"}'),
    "a time of 4,000 digits": lambda rng: lines(
        b'{"time": ' + b"9" * 4000 + b', "messages": [{"role": "user", "content": "a"}], "completion": "b"}'
    ),
    "a line of 80 MB": lambda rng: lines(b'{"x": "' + b"a" * (80 << 20) + b'"}'),
    "half characters": lambda rng: lines({**CALL, "id": "\ud800", "customer": "\udfff"}),
    "numbers like cards": lambda rng: lines({**CALL, "note": "4 " * 50_000, "other": "a@" * 50_000}),
    "one long word": lambda rng: lines({"messages": [{"role": "user", "content": "a" * 3_000_000}], "completion": "b"}),
    "NUL": lambda rng: lines({**CALL, "id": "\x00", "model": "\x00"}),
}  # fmt: skip
LOG_TABLES: dict[str, Make] = {
    "a nasty cell": lambda rng: sheet([["input", "completion", "id"], *([rng.choice(NASTY) for _ in range(3)] for _ in range(30))]),
    "garbled": lambda rng: garbled(sheet([["input", "completion"], ["a", "b"]] * 9), rng),
    "quotes that never end": lambda rng: b'input,completion\n"' + b"a" * 1_000_000,
    "a hundred thousand columns": lambda rng: sheet([[f"c{n}" for n in range(100_000)], list(range(100_000))]),
    "a million empty rows": lambda rng: b"input,completion\na,b\n" + b"\n" * 1_000_000,
}  # fmt: skip
ARCHIVES: dict[str, Make] = {
    "a bomb": lambda rng: gzip.compress(lines(CALL) + b"\n" + b"0" * (200 << 20)),
    "cut short": lambda rng: gzip.compress(lines(*[CALL] * 99))[: rng.randrange(20, 200)],
    "no archive": lambda rng: b"hello",
}
PARQUET: dict[str, Make] = {"no parquet": lambda rng: b"PAR1" + rng.randbytes(500) + b"PAR1"}

# Settings of an environment.

SETTINGS: dict[str, Any] = {
    "id": "acme/X-v0",
    "kind": "rows",
    "files": {"train": "x.jsonl"},
    "reward": {"name": "exact"},
}
_KINDS = ("rows", "code", "decision", "agent", "classify", "extract", "rewrite", "cite", "outcome")


def settings(rng: random.Random) -> bytes:
    import tomli_w

    table = mutated(SETTINGS | {"kind": rng.choice(_KINDS)}, rng, 2)
    return tomli_w.dumps(json.loads(json.dumps(table, default=str).replace("null", '""'))).encode()


TOML: dict[str, Make] = {
    "parts replaced": settings,
    "garbled": lambda rng: garbled(b'id = "acme/X-v0"\nkind = "rows"\n', rng),
    "a number of 6,000 digits": lambda rng: b"id = " + b"9" * 6000,
    "a number of 100 digits": lambda rng: b'id = "a/B-v0"\nkind = "decision"\noutputs = ["a"]\nseed = ' + b"9" * 100,
    "lists in lists": lambda rng: b"x = " + b"[" * DEEP + b"]" * DEEP,
    "tables in tables": lambda rng: b"x = " + b"{a=" * DEEP + b"1" + b"}" * DEEP,
    "a key of many parts": lambda rng: b".".join([b"a"] * DEEP) + b" = 1",
    "a megabyte of keys": lambda rng: b"".join(b"k%d = 1\n" % n for n in range(90_000)),
    "a byte order mark": lambda rng: b"\xef\xbb\xbf" + b'id = "acme/X-v0"\nkind = "rows"\n',
}  # fmt: skip

KINDS: dict[str, dict[str, Make]] = {
    "model.json": JDM, "model.dmn": XML, "model.csv": CSV, "model.xlsx": XLSX, "log.jsonl": LOGS, "log.json": LOGS,
    "log.csv": LOG_TABLES, "log.jsonl.gz": ARCHIVES, "log.parquet": PARQUET, "env.toml": TOML,
}  # fmt: skip


SLOW = frozenset(
    {
        *("a script that never ends", "a promise never kept", "a script that takes all memory", "many rules"),
        *(
            "many literals",
            "a thousand rules",
            "a thousand rules in disorder",
            "a million empty rows",
            "a bomb",
        ),
        *("a line of 80 MB", "a long cell", "many elements", "one long word"),
    }
)


def hostile_files(count: int, seed: int = 0, *, plain: bool = False) -> Iterator[HostileFile]:
    """So many files: every kind once, in an order drawn by the seed, then kinds at random. `plain`: without those
    that take seconds."""
    rng = random.Random(seed)
    every = [(name, kind) for name, kinds in KINDS.items() for kind in kinds if not (plain and kind in SLOW)]
    rng.shuffle(every)
    for number in range(count):
        name, kind = every[number] if number < len(every) else rng.choice(every)
        yield HostileFile(name, kind, KINDS[name][kind](rng))
