"""Made-up texts in which everything personal has a neighbour, and how well a finder does on them.

Each text holds a few findings and a few decoys, side by side, in five locales, as prose, JSON, a URL's query,
a table's row or the arguments of a tool's call; written with all kinds of spaces, dashes and widths.
"""

import json
import random
import re
import string
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

LOCALES = ("en_US", "de_DE", "fr_FR", "es_ES", "it_IT")
REGIONS = ("US", "DE", "FR", "ES", "IT")
KINDS = ("email", "iban", "card", "national_id", "ip", "secret", "phone")
NEEDS_LABEL = {"Steuer-ID", "password", "api_key", "ISBN"}  # nothing in such a value itself says what it is
SPACES = (" ", "\u00a0", "\u202f", "\u2009", " \u200b")
DASHES = ("-", "\u2010", "\u2011", "\u2013")
DIGITS = string.digits


@dataclass(frozen=True, slots=True)
class Piece:
    """A value in a text: of a kind, or a decoy (kind "")."""

    value: str
    kind: str
    label: str


class Texts:
    """Made-up texts; the same seed gives the same."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(f"personal data {seed}")

    def digits(self, n: int) -> str:
        return "".join(self.dice.choice(DIGITS) for _ in range(n))

    def one(self, *choices: str) -> str:
        return self.dice.choice(choices)

    def grouped(self, text: str, *sizes: int) -> str:
        gap = self.dice.choice([*SPACES, *DASHES, "", "", " "])
        pieces, at = [], 0
        for size in sizes:
            pieces.append(text[at : at + size])
            at += size
        return gap.join(filter(None, [*pieces, text[at:]]))

    # -- findings

    def email(self) -> Piece:
        first, last = (
            self.one("anna", "o'brien", "jürgen", "d'angelo", "x", "maria.luisa", "kim+shop", "j_doe")
            for _ in range(2)
        )
        host = self.one("example.com", "mail.example.co.uk", "firma.de", "correo.example.es", "müller.example")
        return Piece(
            f"{first}.{last}{self.digits(2)}@{host}", "email", self.one("email", "e-mail", "Mail", "correo")
        )

    def card(self) -> Piece:
        start, length, sizes = self.dice.choice(
            (("4", 16, (4, 4, 4)), ("51", 16, (4, 4, 4)), ("37", 15, (4, 6)), ("36", 14, (4, 6)))
        )
        body = start + self.digits(length - len(start) - 1)
        return Piece(
            self.grouped(body + luhn_digit(body), *sizes), "card", self.one("card", "Karte", "carte", "tarjeta")
        )

    def iban(self) -> Piece:
        country, body = self.dice.choice(
            (
                ("DE", self.digits(18)),
                ("NL", "ABNA" + self.digits(10)),
                ("AT", self.digits(16)),
                ("GB", "WEST" + self.digits(14)),
                ("FI", ""),
            )
        )
        if country == "FI":
            body = "123456" + self.digits(7)
            body += luhn_digit(body)
        value = country + check_digits(country, body) + body
        value = value.lower() if self.dice.random() < 0.1 else value
        return Piece(self.grouped(value, *([4] * 8)), "iban", self.one("IBAN", "Konto", "compte", "cuenta"))

    def phone(self) -> Piece:
        n, gap = self.digits, self.dice.choice([*SPACES, *DASHES, "", ".", " "])
        forms: dict[str, Callable[[], tuple[str, ...]]] = {
            "en_US": lambda: self.dice.choice(
                (
                    ("+1", f"415{gap}555", f"01{n(2)}"),
                    ("1", "212", "555", f"01{n(2)}"),
                    (f"(312){' '}555-01{n(2)}",),
                )
            ),
            "de_DE": lambda: self.dice.choice(
                (("+49", "30", "9018" + n(4)), ("0171", "2" + n(6)), ("0049", "89", "2" + n(6)))
            ),
            "fr_FR": lambda: self.dice.choice(
                (("+33", "6", n(2), n(2), n(2), n(2)), ("06", n(2), n(2), n(2), n(2)))
            ),
            "es_ES": lambda: self.dice.choice((("+34", "612", n(3), n(3)), ("612", n(3), n(3)))),
            "it_IT": lambda: self.dice.choice((("+39", "347", "1" + n(6)), ("347", "1" + n(6)))),
        }
        parts = forms[self.dice.choice(LOCALES)]()
        if gap == "." and len(parts) == 2 and parts[0][0] not in "+0":
            gap = " "  # 347.1855581 is a decimal number, too
        if not gap and not parts[0].startswith(("+", "0")):
            gap = " "
        return Piece(gap.join(parts), "phone", self.one("phone", "Tel.", "téléphone", "mobile", "call me on"))

    def national_id(self) -> Piece:
        kind = self.one("ssn", "dni", "cf", "nir", "idnr")
        if kind == "ssn":
            return Piece(
                f"{self.dice.randint(100, 665)}-{self.dice.randint(10, 99)}-{self.dice.randint(1000, 9999)}",
                "national_id",
                "SSN",
            )
        if kind == "dni":
            number = self.dice.randint(10**7, 10**8 - 1)
            return Piece(f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}", "national_id", "DNI")
        if kind == "cf":
            from stdnum.it import codicefiscale

            body = f"RSSMRA{self.dice.randint(10, 99)}{self.one(*'ABCDEHLMPRST')}{self.dice.randint(10, 28)}H{self.dice.randint(100, 999)}"
            return Piece(body + codicefiscale.calc_check_digit(body), "national_id", "codice fiscale")
        if kind == "nir":
            body = f"{self.one('1', '2')}{self.dice.randint(10, 99)}{self.dice.randint(1, 12):02}{self.dice.randint(10, 95)}{self.digits(6)}"
            return Piece(f"{body}{97 - int(body) % 97:02}", "national_id", "sécurité sociale")
        from stdnum.de import idnr

        while True:
            body = self.one(*"123456789") + self.digits(9)
            value = body + mod_11_10(body)
            if idnr.is_valid(value):
                return Piece(value, "national_id", "Steuer-ID")

    def ip(self) -> Piece:
        if self.dice.random() < 0.3:
            return Piece(
                f"2001:db8:{self.dice.getrandbits(16):x}::{self.dice.getrandbits(16):x}",
                "ip",
                self.one("ip", "client", "from"),
            )
        return Piece(
            f"{self.one('203.0.113', '198.51.100', '8.8', '91.12.7', '151.101.1')}.{self.dice.randint(1, 254)}".replace(
                "8.8.", "8.8.4."
            ),
            "ip",
            self.one("ip", "client", "from"),
        )

    def secret(self) -> Piece:
        return self.dice.choice(
            (
                Piece("sk-proj-" + self.drawn(40), "secret", "use"),
                Piece(
                    "AKIA" + "".join(self.dice.choice(string.ascii_uppercase + DIGITS) for _ in range(16)),
                    "secret",
                    "aws",
                ),
                Piece("ghp_" + self.drawn(36), "secret", "pushed with"),
                Piece("xoxb-" + self.digits(12) + "-" + self.drawn(24), "secret", "bot"),
                Piece("eyJhbGciOiJIUzI1NiJ9.eyJ" + self.drawn(30) + "." + self.drawn(40), "secret", "jwt"),
                Piece(self.drawn(44) + "7aB2", "secret", "deploy with"),
                Piece(self.drawn(6) + "9!x", "secret", "password"),
                Piece(self.drawn(20) + "4a", "secret", "api_key"),
            )
        )

    def drawn(self, n: int) -> str:
        return "".join(self.dice.choice(string.ascii_letters + DIGITS) for _ in range(n))

    # -- decoys

    def decoy(self) -> Piece:
        n, dice = self.digits, self.dice
        body = "4" + n(14)
        bad = luhn_digit(body)
        broken = body + str((int(bad) + dice.randint(1, 9)) % 10)
        stamp = dice.randint(1_500_000_000, 1_800_000_000)
        return dice.choice(
            (
                Piece(
                    self.one("5", "4", "3", "7") + n(9),
                    "",
                    self.one("order", "Bestellung", "order number", "commande", "pedido"),
                ),
                Piece(self.one("5", "7", "9") + n(9), "", "I wait for"),
                Piece("0306406152", "", "ISBN"),
                Piece(f"978-0-{n(3)}-{n(5)}-{n(1)}", "", "ISBN"),
                Piece(str(stamp), "", "at"),
                Piece(str(stamp * 1000 + dice.randint(0, 999)), "", "timestamp"),
                Piece(f"{stamp}.{n(3)}", "", "time"),
                Piece(
                    f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02} {dice.randint(0, 23):02}:{n(1)}{n(1)[0]}:{dice.randint(10, 59)}",
                    "",
                    "on",
                ),
                Piece(f"{dice.randint(1, 28):02}.{dice.randint(1, 12):02}.2026", "", "am"),
                Piece(f"{dice.randint(1, 12):02}/{dice.randint(26, 32)}", "", "valid to"),
                Piece(f"{n(2)},{n(3)}.{n(2)}", "", "amount"),
                Piece(f"{dice.random() * 100:.7f}", "", "score"),
                Piece(broken, "", "terminal"),
                Piece(f"00340434{n(12)}", "", "tracking"),
                Piece(f"{dice.getrandbits(128):032x}", "", "trace"),
                Piece("-".join(f"{dice.getrandbits(4 * k):0{k}x}" for k in (8, 4, 4, 4, 12)), "", "id"),
                Piece(
                    "chatcmpl-" + "".join(dice.choice(string.ascii_letters + DIGITS) for _ in range(29)),
                    "",
                    "call",
                ),
                Piece(f"10.0.{dice.randint(0, 255)}.{dice.randint(0, 255)}", "", "node"),
                Piece(f"v{dice.randint(1, 9)}.{dice.randint(0, 20)}.{dice.randint(0, 9)}", "", "version"),
                Piece(wrong_iban(n(18)) if dice.random() < 0.5 else f"INV-{n(8)}", "", "invoice"),
                Piece(f"{n(5)}", "", "zip"),
                Piece(f"{dice.randint(2, 9)}x{n(3)}x{n(3)}", "", "size"),
                Piece(f"max_tokens: {dice.randint(100, 4096)}", "", "set"),
            )
        )

    # -- texts

    def text(self) -> tuple[str, list[tuple[int, int, str]]]:
        """A text, and where its findings stand: start, end, kind."""
        makers = (self.email, self.card, self.iban, self.phone, self.national_id, self.ip, self.secret)
        pieces = [self.dice.choice(makers)() for _ in range(self.dice.randint(1, 3))]
        pieces += [self.decoy() for _ in range(self.dice.randint(1, 3))]
        self.dice.shuffle(pieces)
        form, ascii_only = (
            self.one("prose", "prose", "bare", "json", "tool", "url", "table"),
            self.dice.random() < 0.5,
        )
        quoted = self.dice.choice((quote, quote_plus))
        joints = (", ", "; ", " and ", ". Also ", "\n", " (", ") ") if form == "prose" else (" ", ", ", " / ")
        made, spans = "https://shop.example/x?" if form == "url" else "", []
        for piece in pieces:
            key, value = re.sub(r"\W+", "_", piece.label.casefold()), piece.value
            if form in ("json", "tool"):
                value, key = json.dumps(value, ensure_ascii=ascii_only)[1:-1], f'"{key}": "'
                value, key = (
                    (json.dumps(value)[1:-1], json.dumps(key)[1:-1]) if form == "tool" else (value, key)
                )
                after = '\\", ' if form == "tool" else '", '
            elif form == "url":
                value, key, after = quoted(value), f"{key}=", "&"
            elif form == "prose":
                key, after = piece.label + self.one(" ", ": "), self.dice.choice(joints)
            else:
                key, after = "", " | " if form == "table" else self.dice.choice(joints)
                if piece.label in NEEDS_LABEL:
                    key = f"{piece.label} "
            spans += [(len(made + key), len(made + key + value), piece.kind)] if piece.kind else []
            made += key + value + after
        return made, spans


def luhn_digit(body: str) -> str:
    from stdnum import luhn

    return str(luhn.calc_check_digit(body))


def wrong_iban(body: str) -> str:
    right = int(check_digits("DE", body))
    return f"DE{2 + (right - 1) % 97:02}{body}"


def mod_11_10(body: str) -> str:
    from stdnum.iso7064 import mod_11_10 as check

    return str(check.calc_check_digit(body))


def check_digits(country: str, body: str) -> str:
    """The check digits of an IBAN; German and other accounts have none of their own here."""
    number = int("".join(str(int(c, 36)) for c in f"{body}{country}00"))
    return f"{98 - number % 97:02}"


Finder = Callable[[str], list[tuple[int, int, str]]]


@dataclass(slots=True)
class Score:
    """Counts of one kind."""

    found: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        return self.found / max(1, self.found + self.missed)

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.wrong)


def measured(find: Finder, seed: int, texts: int, examples: list[str]) -> dict[str, Score]:
    """The counts by kind on the texts of a seed; some faults in words."""
    made, scores = Texts(seed), defaultdict[str, Score](Score)
    for _ in range(texts):
        text, wanted = made.text()
        found = find(text)
        masked = {i for start, end, _ in found for i in range(start, end)}
        personal = {i for start, end, _ in wanted for i in range(start, end)}
        for start, end, kind in wanted:
            left = [i for i in range(start, end) if i not in masked and text[i].isalnum()]
            scores[kind].found += not left
            scores[kind].missed += bool(left)
            if left:
                examples.append(f"missed {kind}: {text[start:end]!r} in {text!r}")
        for start, end, kind in found:
            if any(text[i].isalnum() for i in range(start, end) if i not in personal):
                scores[kind].wrong += 1
                examples.append(f"wrong {kind}: {text[start:end]!r} in {text!r}")
    return scores
