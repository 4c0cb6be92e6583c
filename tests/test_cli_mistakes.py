"""Mistakes that people make in their first hours: each ends with one line that says what to do, and code 2.

A case changes one thing of what works (`FILES`) or of the command line; `said` is what helps.
"""

import shlex
from pathlib import Path

import pytest

from .conftest import CommandLine
from .returns import ENV

TABLE = "F,score,amount,-> decision\n1,< 580,,decline\n2,>= 700,<= 20,approve\n3,,,refer\n"
SUITE = f"""name = "s"
metrics = ["exact"]
[[env]]
id = "{ENV}"
split = "eval"
tasks = 8
[sampling]
max_tokens = 16
[[gate]]
rule = "improves"
metric = "exact"
"""
RUN = f"""name = "r"
env = "{ENV}"
model = "tiny"
algorithm = "grpo"
steps = 2
[rollout]
tasks = 2
group_size = 2
max_tokens = 4
"""
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
CONFIG = """id = "a/B-v0"
kind = "rows"
[files]
train = "train.jsonl"
eval = "eval.jsonl"
[reward]
name = "exact"
"""
ASKED = "frage,antwort\nwo ist mein paket,versand\nich will geld zurück,kasse\n"
NUMBERED = "Nr,frage,antwort\n1,wo ist mein paket,versand\n2,ich will geld zurück,kasse\n"
FILES = {
    "loans.csv": TABLE,
    "suite.toml": SUITE,
    "run.toml": RUN,
    "sft.toml": f'name = "w"\nenv = "{ENV}"\nmodel = "tiny"\nalgorithm = "sft"\nsteps = 2\n[sft]\ndata = "rows.jsonl"\n',
    "rows.jsonl": 3 * ROW,
    "qa.csv": "question,answer\n" + "".join(f"what is {i} plus {i},{2 * i}\n" for i in range(60)),
    "calls.jsonl": 9 * '{"messages": [{"role": "user", "content": "where is it"}], "completion": "shipping"}\n',
    "case.json": '{"score": 1}',
    "env/env.toml": CONFIG,
    "env/train.jsonl": '{"question": "one and one", "answer": "2"}\n{"question": "two and one", "answer": "3"}\n',
    "env/eval.jsonl": '{"question": "one and three", "answer": "4"}\n',
    "p/mine.txt": "kept",
}

# file, what stands there, what is written instead ("": the whole file); the command; what is said
Mistake = tuple[str, str, str, str, str]
EVAL = "eval suite.toml -m scripted:expert --no-gate"
START = "start loans.csv -o out"
MISTAKES: list[Mistake] = [
    # a table of rules
    ("loans.csv", "< 580", "<< 580", START, "cell B2: '<< 580': not a test; write < 5, [5..10]"),
    ("loans.csv", "< 580", "under 580", START, "cell B2: 'under 580': a test in words; write <"),
    ("loans.csv", "F,", "X,", START, "X in A1 counts the rules, and is no hit policy: write U, A, P, F"),
    ("loans.csv", "F,", "First,", START, "First in A1 counts the rules, and is no hit policy: write U, A, P, F"),
    ("loans.csv", "amount,", "score,", START, "two columns are called 'score'"),
    ("loans.csv", TABLE, "F,score,-> decision\n", START, "a table needs a header row and at least one rule"),
    ("loans.csv", ",,decline", ",decline", START, "row 2 has no outcome"),
    ("loans.csv", "decline", "=A1", START, "cell D2: a formula (=A1): write its value"),
    ("loans.xlsx", "", "text", "start loans.xlsx -o out", "not a workbook: save it as .xlsx, or name a table"),
    ("loans.dmn", "", "<definitions>", "start loans.dmn -o out", "not XML (no element found: line 1"),
    ("loans.json", "", '{"nodes": [', "start loans.json -o out", "loans.json: no call in what was given: not JSON"),
    ("loans.json", "", '{"a": 1}', "env import loans.json --id a/B-v0", "not a decision model (JDM): a JSON object"),
    ("loans.docx", "", "x", "start loans.docx -o out", "not a known format of rules; known: .json, .dmn"),
    ("", "", "", "start load.csv -o out", "load.csv: no such file"),
    ("", "", "", "start loans.csv --id loans -o out", "the form is namespace/Name-v0"),
    ("", "", "", "env import loans.csv --id acme/Loans", "the form is namespace/Name-v0"),
    ("", "", "", "env import loans.csv --id a/B-v0 --rules show", "'show' is not one of 'shown', 'hidden'"),
    ("", "", "", "env diff loans.csv", "Missing argument 'new'"),
    ("", "", "", "rules show suite.toml", "not a known format of rules; known: .json, .dmn"),
    ("case.json", '{"score": 1}', "[1]", "rules run loans.csv --case case.json", "a case is a JSON record"),
    ("", "", "", "rules run loans.csv --case '{score: 1}'", "--case {score: 1}: not JSON"),
    # questions and answers, logs
    ("qa.csv", "", ASKED, "start qa.csv -o out", "For the first add --column 'question=frage'"),
    ("qa.csv", "", ASKED.replace(",", ";"), "start qa.csv -o out", "questions and answers, or rules?"),
    ("qa.csv", "", NUMBERED, "start qa.csv -o out", "questions and answers, or rules?"),
    ("", "", "", "start qa.csv --column question=problem -o out", "no column 'problem'; known: answer, question"),
    ("qa.csv", "", "question;answer\na;b\n", "start qa.csv -o out", "its columns are separated by ';'"),
    ("", "", "", "start qa.csv -o loans.csv", "loans.csv exists: name a new folder"),
    ("", "", "", "start qa.csv -o p", "p exists: name a new folder"),
    ("", "", "", "start calls.jsonl -o out", "nothing in it says what is right: a log of calls takes labels, edits"),
    ("", "", "", "traces import calls.json -o out", "calls.json: no such file"),
    ("calls.jsonl", "", '{"a": 1}\n', "traces import calls.jsonl -o out", "no format is known with the keys a"),
    (
        "calls.jsonl", "", '{"messages": "where"}\n', "traces import calls.jsonl -o out",
        "messages: a list of chat messages is needed, this is text",
    ),
    ("", "", "", "traces import calls.jsonl -o out --split customer", "--map customer=COLUMN names where it stands"),
    ("", "", "", "traces import calls.jsonl -o out --splits customer", "No such option: --splits (Possible options"),
    # a suite
    ("suite.toml", "improves", "improve", EVAL, "no such rule; did you mean 'improves'?"),
    ("suite.toml", 'metric = "exact"', 'metric = "exakt"', EVAL, "no metric 'exakt': there are score"),
    ("suite.toml", "metrics =", "metric =", EVAL, "unknown key 'metric'; did you mean"),
    ("suite.toml", "Returns-v0", "Return-v0", EVAL, "did you mean 'vertigym/Returns-v0'"),
    ("suite.toml", '"eval"', '"evaluation"', EVAL, "Input should be 'train', 'eval' or 'test' (got 'evaluation')"),
    ("suite.toml", "tasks = 8", "tasks = 0", EVAL, "env.0.tasks: Input should be greater than or equal to 1"),
    ("suite.toml", "max_tokens", "max_token", EVAL, "unknown key 'sampling.max_token'; did you mean 'max_tokens'?"),
    ("suite.toml", '"improves"', '"not_worse"', EVAL, "needs a margin above 0, for example margin = 0.02"),
    ("suite.toml", '"improves"', '"at_least"', EVAL, "needs a threshold, for example threshold = 0.8"),
    ("suite.toml", SUITE, 'name = "s"\n', EVAL, "key 'env' is missing"),
    ("suite.toml", "[sampling]", "[sampling", EVAL, "suite.toml: not TOML"),
    ("", "", "", "eval suite.toml -m scripted:expert", "name one with -b, or only measure with --no-gate"),
    ("", "", "", "eval suite.toml -m scripted:oracle --no-gate", "known: constant:TEXT, echo, expert"),
    ("", "", "", "eval suite.toml -m nowhere --no-gate", "no such folder, and no name of a model of the Hugging Face"),
    ("", "", "", "eval suite.toml -m openai:gpt --no-gate", "the form is openai:MODEL@http://host:port/v1"),
    ("", "", "", "eval suite.toml", "give either -m MODEL to sample, or --rescore FILE"),
    ("", "", "", "eval run.toml -m scripted:expert", "a run, not a suite: train it with `vertigym train run.toml`"),
    ("", "", "", "compare suite.toml suite.toml", "suite.toml: not a report"),
    # a run
    ("run.toml", "grpo", "gpro", "train run.toml", "Input should be 'sft', 'dpo', 'grpo', 'ppo' or 'distill'"),
    ("run.toml", "steps = 2", "step = 2", "train run.toml", "unknown key 'step'; did you mean 'steps'?"),
    ("run.toml", "[rollout]", "[rollouts]", "train run.toml", "unknown key 'rollouts'; did you mean 'rollout'?"),
    ("run.toml", "group_size = 2", "group_size = 1", "train run.toml", "rollout.group_size must be at least 2"),
    ("run.toml", '"tiny"', '"org/small"', "train run.toml", "fill the cache with `hf download org/small"),
    ("", "", "", "train run.toml lr=1e-4", "unknown key 'lr'; did you mean optimizer.lr"),
    ("", "", "", "train run.toml optimizer.learning_rate=1e-4", "known: betas, clip_norm, eps, final_lr, lr"),
    ("", "", "", "train run.toml --resume", "holds no run to resume: start it without --resume"),
    ("", "", "", "train suite.toml", "a suite, not a run: measure a model with `vertigym eval suite.toml -m MODEL`"),
    ("", "", "", "train sft.toml sft.data=row.jsonl", "row.jsonl: no such file"),
    ("rows.jsonl", "", '{"prompt": "a", "response": "b"}\n', "train sft.toml", 'rows.jsonl:1: a row is {"messages"'),
    ("rows.jsonl", "", "messages\n", "train sft.toml", "rows.jsonl:1: not JSON"),
    ("sft.toml", '"sft"', '"dpo"', "train sft.toml", 'needs a section [dpo] with data = "pairs.jsonl"'),
    ("run.toml", "", RUN + '[eval]\nsuites = ["suit.toml"]\n', "train run.toml", "suit.toml: no such file"),
    ("run.toml", "", RUN + '[eval]\nsuite = "a"\n', "train run.toml", "'eval.suite'; did you mean 'suites'?"),
    ("run.toml", "", RUN + "[lora]\nr = 8\n", "train run.toml", "'lora.r'; did you mean 'rank'"),
    # an environment
    ("env/env.toml", '"rows"', '"row"', "env check env", "did you mean 'rows'?"),
    ("env/env.toml", "train.jsonl", "trian.jsonl", "env check env", "env/trian.jsonl: no such file"),
    ("env/env.toml", '"exact"', '"exakt"', "env check env", "did you mean 'exact'? Or name a function of yours"),
    ("env/env.toml", '"a/B-v0"', '"B"', "env check env", "id 'B': the form is namespace/Name-v0"),
    ("env/env.toml", "[reward]", "[rewards]", "env check env", "unknown key 'rewards'; did you mean 'reward'?"),
    ("env/train.jsonl", "question", "q", "env check env", "name yours: [columns] question = 'q'"),
    ("env/train.jsonl", '"', "'", "env check env", "env/train.jsonl:1: not JSON"),
    ("", "", "", "env show vertigym/Return-v0", "did you mean 'vertigym/Returns-v0'"),
    ("", "", "", "env check nowhere", "Looked among the built-in ones, installed packages, folders under"),
    ("", "", "", "env rows env --policy experts -o out.jsonl", "which takes expert"),
    ("", "", "", "env rows env -o rows.jsonl", "rows.jsonl exists: name another file, or replace it with --force"),
    # what is not there
    ("", "", "", "serve nowhere", "model 'nowhere': no such folder"),
    ("", "", "", "model check nowhere", "model 'nowhere': no such folder"),
    ("", "", "", "report nowhere", "nowhere: no such file"),
    ("", "", "", "tarin run.toml", "No such command 'tarin'"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake[3]} {mistake[4]}"[:70])
def test_a_mistake_is_answered_in_one_line(mistake: Mistake, command: CommandLine) -> None:
    changed, old, new, line, said = mistake
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    if changed:
        text = FILES.get(changed, "")
        assert old in text
        Path(changed).write_text(text.replace(old, new) if old else new)
    code, _, err = command(*shlex.split(line))
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert said in err
    assert not Path("out").exists()
    assert Path("p/mine.txt").read_text() == "kept"


def test_there_are_sixty() -> None:
    assert len(MISTAKES) >= 60
