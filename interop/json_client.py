"""A client of another program's HTTP server: JSON in, JSON out, and the cookies of a session kept."""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any

from vertigym.core.errors import ConfigError, InfrastructureError

_TAIL = 200  # characters of an error's body that are shown


class RefusedRequestError(InfrastructureError):
    """The server answered with an error; `status` is its HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JsonClient:
    """Asks the server at `url`, as one session.

    Raises:
        ConfigError: not an http(s) address.
    """

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no address: it must start with http:// or https://")
        self.url, self._timeout_s = url.rstrip("/"), timeout_s
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def text(self, path: str, body: Any = None) -> str:
        """What the server answers; a POST where there is a body.

        Raises:
            RefusedRequestError: it answers with an error. InfrastructureError: it does not answer.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 (checked above)
            self.url + path, data, {"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:_TAIL]
            raise RefusedRequestError(error.code, f"{self.url}{path} answers {error.code}: {said}") from None
        except (OSError, HTTPException) as error:
            raise InfrastructureError(f"{self.url}{path} does not answer: {error}") from None

    def ask(self, path: str, body: Any = None) -> Any:
        """The same, read as JSON.

        Raises:
            InfrastructureError: as `text`, or it is no JSON.
        """
        said = self.text(path, body)
        try:
            return json.loads(said)
        except ValueError:
            raise InfrastructureError(f"{self.url}{path} answers no JSON: {said[:_TAIL]!r}") from None
