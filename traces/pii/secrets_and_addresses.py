"""E-mail addresses, addresses of machines, and secrets: found by their shape, their prefix, their label or
their entropy.

Sources: the prefixes that GitHub's and others' secret scanning publish; RFC 7519 (JWT), RFC 7468 (PEM), RFC
3986 (URLs).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from vertigym.traces.pii.number_labels import label_before
from vertigym.traces.pii.numbers import Span

_EMAIL = re.compile(r"(?<![\w.+%'-])\w[\w.+%'-]*@(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,}")
_IP = re.compile(
    r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
    r"|(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{3,39}(?![\w:]))"
)
_OWN: tuple[IPv4Network | IPv6Network, ...] = tuple(  # of every network: no person's
    map(ip_network, ("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                     "192.168.0.0/16", "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8"))
)  # fmt: skip
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|whsec_[A-Za-z0-9]{24,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"
    r"|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}"
    r"|pypi-[A-Za-z0-9_-]{50,}|hf_[A-Za-z0-9]{30,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|dop_v1_[a-f0-9]{64}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|pk-lf-[a-f0-9-]{36}|sk-lf-[a-f0-9-]{36}|lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"
    r")(?![A-Za-z0-9])"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
    re.DOTALL,
)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/:@\"'<>]*:([^\s/@\"'<>]+)@")
_NAMED = re.compile(
    r"(?<![A-Za-z])(?P<name>pass(?:word|wd|phrase|code)?|pwd|kennwort|passwort|mot de passe|contraseña"
    r"|(?:client|app|aws)?[_-]?secret"
    r"(?:[_-]?(?:access[_-]?)?key)?|(?:api|access|auth|secret|private|encryption)[_-]?(?:key|token)"
    r"|(?:refresh|id|session|bearer)[_-]?token"
    r"|token|signature|sig|x-api-key|apikey)"
    r"(?P<mark>[\\\"']*\s?(?:[:=]|\bis\b)\s?|\s+)(?P<quote>[\\\"']*)(?P<value>[^\s\"'&,;<>\0]{4,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?:Bearer|Basic)\s+(?P<value>[A-Za-z0-9._~+/=-]{12,})")
_LONG = re.compile(r"(?<![\w+/.-])[A-Za-z0-9+/_-]{32,}={0,2}(?![\w+/])")
_IDENTIFIER = re.compile(
    r"(?:chatcmpl|cmpl|call|toolu|msg|resp|req|run|thread|asst|file|batch|fc|rs|item|sess|org|proj|user|cus"
    r"|ord|evt|in|pi"
    r"|ch|sub|pm|price|prod|acct|trace|span|step|ws|vs|srvtoolu|msgbatch|gen)[-_]"
)
_SURE = re.compile(r"pass|pwd|kennwort|mot de|contrase", re.IGNORECASE)
_ENTROPY = (
    4.0  # bits a character: random base 62 of 32 characters has 4.4 on average, prose about 4.1 but no digits
)


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses; `git@host:path` is an address of a repository."""
    for match in _EMAIL.finditer(text):
        if not (match[0].startswith("git@") and text[match.end() : match.end() + 1] == ":"):
            yield match.start(), match.end(), match[0].casefold()


def addresses(text: str) -> Iterator[Span]:
    """IP addresses but for those that every network has; four numbers after *version* are none."""
    for match in _IP.finditer(text):
        try:
            address = ip_address(match[0])
        except ValueError:
            continue
        if not any(address in network for network in _OWN if network.version == address.version) and (
            label_before(text, match.start()) != "other"
        ):
            yield match.start(), match.end(), str(address)


def secrets(text: str) -> Iterator[Span]:
    """Keys and tokens by their prefix, passwords in URLs, what stands behind a name such as `api_key`, and long
    strings of characters that look drawn at random."""
    found = [match.span() for match in _KNOWN.finditer(text)]
    found += [match.span(1) for match in _CREDENTIALS.finditer(text)]
    found += [match.span("value") for match in _BEARER.finditer(text)]
    found += [match.span("value") for match in _NAMED.finditer(text) if _is_value(match)]
    found += [match.span() for match in _LONG.finditer(text) if _is_random(match[0])]
    end = 0
    for start, stop in sorted(found, key=lambda span: (span[0], -span[1])):
        if start >= end:
            end = stop
            yield start, stop, text[start:stop]


def _is_value(match: re.Match[str]) -> bool:
    """Whether what stands behind a name is a secret: a password with anything but letters in it, or behind a
    sign; of a token, enough characters with digits and letters, for `token: 512` counts."""
    value, sign = match["value"].rstrip(".)!?"), "=" in match["mark"] or bool(match["quote"])
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    if value.startswith(("[", "{", "$", "<", "*")) or value.casefold() in ("null", "none", "true", "false"):
        return False
    if _SURE.match(match["name"]):
        return sign or (":" in match["mark"] and not value.isalpha()) or mixed
    return mixed and len(value) >= (8 if sign or ":" in match["mark"] else 16)


def _is_random(text: str) -> bool:
    """Both cases and digits, and the entropy of a draw; hexadecimal hashes, UUIDs and vendors' ids are none."""
    if _IDENTIFIER.match(text) or text.count("/") > len(text) / 12:
        return False
    cases = any(c.islower() for c in text), any(c.isupper() for c in text), sum(map(str.isdigit, text)) >= 2
    counts = Counter(text).values()
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
    return all(cases) and entropy >= _ENTROPY
