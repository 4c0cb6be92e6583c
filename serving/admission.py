"""Who may ask, and how often.

Without a key a server listens on this machine only and accepts only this machine's host names (against DNS
rebinding by a web page). With one, an address that sends wrong keys is refused for a while, its right key too:
a guess that is not checked tells nothing.
"""

import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from starlette.requests import Request

from vertigym.core.errors import ConfigError
from vertigym.dialects.chat_call import RefusedError
from vertigym.dialects.registry import sent_key

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")  # of this machine, in a browser's address line
_HOST = re.compile(r"([\w.-]+|\[[\da-f:.]+\])(:\d+)?", re.IGNORECASE | re.ASCII)
_CLIENTS = 10_000  # whose rate is remembered
_WRONG_KEYS = 10  # a minute, from one address


def check_address(host: str, key: str, proxies: Sequence[str] = ()) -> None:
    """Refuse an address that others can reach, without a key.

    Raises:
        ConfigError: `host` is not this machine's own or there is a proxy, and there is no key, or the key is
            short.
    """
    if key and len(key) < 16:
        raise ConfigError("the key is shorter than 16 characters: make one with openssl rand -hex 24")
    if not key and proxies:
        raise ConfigError("others come through a proxy, and there is no key: set VERTIGYM_SERVE_KEY")
    if not key and not is_loopback(host):
        raise ConfigError(
            f"host {host!r} can be reached by others, and there is no key: set VERTIGYM_SERVE_KEY, "
            "or use 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_local(host: str) -> bool:
    """Whether a Host header, name and port, names this machine."""
    found = _HOST.fullmatch(host)
    return found is not None and found[1].strip("[]").lower() in LOCAL_NAMES


def asks_from_here(headers: Mapping[str, str]) -> bool:
    """Whether the page or program that asks is one of this machine's: its Host is local, and so is the Origin
    that a browser names."""
    named = headers.get("host", ""), headers.get("origin", "http://localhost")
    return all(is_local(name.partition("://")[2] or name) for name in named)


def trusted_networks(proxies: Sequence[str]) -> list[str]:
    """The addresses and networks of proxies, as networks; those of IPv4 also as IPv6 sockets see them.

    Raises:
        ConfigError: one is neither, or is the whole internet.
    """
    return [network for proxy in proxies for network in _networks(proxy)]


def _networks(proxy: str) -> Iterator[str]:
    try:
        network = ipaddress.ip_network(proxy)
    except ValueError:
        network = None
    if not network or not network.prefixlen:
        raise ConfigError(f"proxy {proxy!r}: give its IP address or network, like 10.0.0.7 or 10.0.0.0/24")
    yield str(network)
    if network.version == 4:
        yield f"::ffff:{network.network_address}/{96 + network.prefixlen}"


class Admission:
    """Lets requests in by key or host name, and by rate."""

    def __init__(self, key: str, per_minute: float) -> None:
        self._key = key.encode()
        self._per_minute = per_minute
        self._requests = RateLimiter(per_minute)
        self._wrong_keys = RateLimiter(_WRONG_KEYS)

    def check(self, http: Request) -> None:
        """
        Raises:
            RefusedError: no key, a wrong key, another host's name, or too many requests.
        """
        client = _client(http.client.host if http.client else "")
        if self._key:
            self._check_key(client, http.headers)
        else:
            self.check_host(http)
        if wait := self._requests.wait(client):
            raise RefusedError(
                429, f"more than {self._per_minute:g} requests a minute", "rate_limit", retry_s=wait
            )

    def check_host(self, http: Request) -> None:
        """
        Raises:
            RefusedError: there is no key, and the request is for another host's name.
        """
        if not self._key and not is_local(http.headers.get("host", "")):
            raise RefusedError(400, "this server answers to localhost only: wrong Host header")

    def _check_key(self, client: str, headers: Mapping[str, str]) -> None:
        if wait := self._wrong_keys.wait(client, 0):
            raise RefusedError(429, "too many wrong keys from this address", "rate_limit", retry_s=wait)
        if not hmac.compare_digest(sent_key(headers).encode("latin-1"), self._key):  # the bytes of the header
            self._wrong_keys.wait(client)
            raise RefusedError(401, "no key, or a wrong one: send Authorization: Bearer KEY", "invalid_api_key")


class RateLimiter:
    """Token buckets: each client may ask `per_minute` times a minute, all at once if it likes."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = per_minute / 60, max(1.0, per_minute), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, take: int = 1) -> int:
        """0, or the whole seconds after which `client` may ask again. `take` 0 asks without counting."""
        if not self._rate:
            return 0
        now = self._clock()
        left, seen = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - seen) * self._rate)
        self._left[client] = (left - take if left >= 1 else left, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0 if left >= 1 else max(1, round((1 - left) / self._rate + 0.5))


def _client(host: str) -> str:
    """Whose rate counts: an IPv4 address, or the /64 of an IPv6 address, all of which one caller has. Text
    that is no address (a proxy may forward any) is one client."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((int(address), 64), strict=False))
