"""The settings of an import, `traces.toml`: every key has a default, and `vertigym traces import` writes the
whole file into the folder it fills.

    turns = "all"                          # of a conversation: every answer is a call; or only the "last"

    [columns]                              # for rows in a shape of your own: our field = your column
    input = "question"                     # dots lead into nested objects: "request.user"
    completion = "answer"
    customer = "tenant"

    [decontaminate]
    against = ["suites/intent.jsonl", "gsm8k_test.jsonl", "acme/Loan-v0"]

    [pii]
    names = "staff.txt"                    # one name a line

    [split]
    by = "customer"                        # or "time", "cluster", "input"
"""

from typing import Literal

from pydantic import Field, model_validator

from vertigym.core.config import Config

PiiKind = Literal["email", "phone", "card", "iban", "national_id", "ip", "secret", "name"]
KINDS: tuple[PiiKind, ...] = ("email", "iban", "card", "national_id", "ip", "secret", "phone", "name")


class Columns(Config):
    """Which column holds what. Empty: look where the known formats have it."""

    input: str = Field("", description="the user's text, or a list of chat messages")
    system: str = Field("", description="the system message")
    completion: str = Field("", description="what the model answered")
    id: str = Field("", description="the call's own")
    time: str = Field("", description="ISO 8601, or seconds since 1970")
    model: str = Field("", description="that answered")
    version: str = Field("", description="of that model")
    label: str = Field("", description="what was right")
    outcome: str = Field("", description="what came of it")
    customer: str = Field("", description="who asked")
    session: str = Field("", description="which conversation")
    cluster: str = Field("", description="what belongs together")
    latency_s: str = Field("", description="in seconds")
    cost: str = Field("", description="in the currency of your own")
    documents: str = Field("", description="text, a list of texts, or of {id, text}")
    thumb: str = Field("", description="up or down; also 1, 0, true, false, +1, -1")
    edit: str = Field("", description="what people made of the answer")
    resolved: str = Field("", description="true or false")


class Decontaminate(Config):
    """What the calls must not contain: held-out tasks and public benchmarks.

    A text of the list is found in a call when `share` of its runs of `words` words stand there; a shorter text
    only when it is one message by itself.
    """

    against: tuple[str, ...] = Field((), description="JSONL files, or environments (their eval and test tasks)")
    words: int = Field(8, ge=3, description="of a run")
    share: float = Field(0.5, gt=0, le=1, description="of its runs that stand in a call")


class Pii(Config):
    """What is masked, in every text of a row."""

    mask: tuple[PiiKind, ...] = Field(KINDS, description="kinds of personal data")
    names: str = Field("", description="file of names, or of addresses, one a line")
    ner: str = Field("", description="spaCy pipeline that finds names in no list (extra ner): en_core_web_sm")
    ner_labels: tuple[str, ...] = Field(
        ("PERSON", "PER"), description="its labels that count as names; places are GPE, LOC, FAC"
    )
    regions: tuple[str, ...] = Field((), description='countries whose phone numbers need no code: ["US", "DE"]')
    key: str = Field("", description="new file for the values behind the placeholders, apart from the import")


class Duplicates(Config):
    """Two calls are near-duplicates when the runs of five characters of their inputs, and those of their
    answers, overlap (Jaccard) by at least `near`. Text of forty characters and more that stands in more than
    `common` of the inputs is a template's and does not count."""

    exact: bool = Field(True, description="drop repeated calls")
    near: float = Field(0.7, ge=0, le=1, description="0: keep near-duplicates")
    common: float = Field(0.02, gt=0, le=1, description="text in a larger share of inputs is a template's")


class Conflicts(Config):
    """The same input with different answers (labels, where there are some): always listed, then kept, dropped,
    or settled for the answer given most often (none wins a tie, and all of the input's calls go)."""

    do: Literal["keep", "drop", "majority"] = Field("keep", description="with the calls of such an input")


class Splits(Config):
    """Which calls are held out. Whatever the rule, no input and no session stands on two sides.

    by "input": at random. "customer", "session", "cluster": whole customers, conversations or clusters. "time":
    the newest calls are the test, those before them the eval.
    """

    by: Literal["input", "customer", "session", "cluster", "time"] = Field(
        "input", description="what is held out as a whole"
    )
    eval: float = Field(0.1, ge=0, lt=1, description="share")
    test: float = Field(0.1, ge=0, lt=1, description="share")

    topics: int = Field(
        0,
        ge=0,
        le=200,
        description="groups of what users ask; eval and test have the same shares of each as the log",
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> "Splits":
        if self.eval + self.test >= 1:
            raise ValueError(f"split.eval + split.test is {self.eval + self.test:g}: nothing is left for train")
        return self


class Balance(Config):
    """At most `max_per_label` train calls of one label (0: no limit); eval and test keep the log's shares."""

    max_per_label: int = Field(0, ge=0, description="0: no limit")


class ImportConfig(Config):
    """`traces.toml`."""

    seed: int = Field(0, ge=0, description="of all random numbers")
    format: str = Field("", description="the form of all rows, by its name; left out: each row's is found")
    turns: Literal["all", "last"] = Field(
        "all", description="of a conversation: every answer is a call, or the last one"
    )
    columns: Columns = Columns()
    decontaminate: Decontaminate = Decontaminate()
    pii: Pii = Pii()
    duplicates: Duplicates = Duplicates()
    conflicts: Conflicts = Conflicts()
    split: Splits = Splits()
    balance: Balance = Balance()
    memory_mb: int = Field(256, ge=128, description="what the sorting engine may hold before it spills to disk")
