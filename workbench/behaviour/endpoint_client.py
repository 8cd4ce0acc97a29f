"""OpenAIClient: sends one chat completion through the `openai` package. The only file that imports it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from stores.provenance import scrubbed
from workbench.behaviour.endpoint_reply import EndpointError, Fault, Reply, reply_from

OPENAI = "https://api.openai.com/v1"
OWN_KEY, OPENAI_KEY = "WORKBENCH_JUDGE_KEY", "OPENAI_API_KEY"
REDACTED = "<redacted>"
_AGAIN = (408, 409, 425, 429)  # and every 5xx
_NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")  # 429, but waiting does not help


def address_of(base_url: str | None) -> str:
    """The server's address: `base_url`, else OPENAI_BASE_URL, else OpenAI's. ValueError for one that holds a
    password."""
    address = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url is {scrubbed(address)!r}: expected an address such as 'http://localhost:8000/v1'.")
    if parts.username or parts.password or parts.query:
        raise ValueError(f"base_url holds more than an address: put the key into the variable {OWN_KEY} instead.")
    return address


def key_of(base_url: str | None) -> str:
    """The key, from the environment only. OPENAI_API_KEY is not sent to an address that was given as an argument: it
    belongs to OpenAI, or to the server of OPENAI_BASE_URL."""
    if key := os.environ.get(OWN_KEY):
        return key
    address = address_of(base_url)
    if base_url is None or urlsplit(address).hostname == urlsplit(OPENAI).hostname:
        if key := os.environ.get(OPENAI_KEY):
            return key
        if urlsplit(address).hostname == urlsplit(OPENAI).hostname:
            raise EndpointError(f"No key: put one into the environment variable {OPENAI_KEY} or {OWN_KEY}.")
    return "none"  # local servers take any


class OpenAIClient:
    """An open connection, inside one event loop. The package's own retries are off: whoever retries must count what a
    try may cost."""

    def __init__(self, base_url: str | None, timeout: float) -> None:
        """Raises ImportError, with the install command, where the package is missing; EndpointError without a key."""
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                "An openai:NAME judge or model needs the openai package: pip install -e '.[judge]'."
            ) from error
        self._openai, self._key = openai, key_of(base_url)
        self._client = openai.AsyncOpenAI(
            api_key=self._key, base_url=address_of(base_url), timeout=timeout, max_retries=0
        )

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """The reply to a chat completion's body. Raises Fault; its reason never holds the key."""
        fields = dict(body)
        model, messages = fields.pop("model"), fields.pop("messages")
        try:
            # The raw text: a body that was cut off must not pass for a reply without content. Everything else goes as
            # it is, so that fields of one server alone need no version of the package that knows them.
            create = self._client.chat.completions.with_raw_response.create
            raw = await create(model=model, messages=messages, extra_body=fields)
            text = raw.http_response.text
        except self._openai.APIStatusError as error:
            raise self._refusal(error) from None
        except self._openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            late = isinstance(error, self._openai.APITimeoutError)
            reason = "the server did not answer in time" if late else f"the connection failed ({cause})"
            # A connection that was never made carried no request.
            raise Fault(reason, again=True, paid=not cause.startswith(("Connect", "Pool"))) from None
        except (self._openai.OpenAIError, ValueError) as error:
            raise Fault(f"the reply could not be read ({type(error).__name__})", again=True, paid=True) from None
        try:
            answered = json.loads(text)
        except (ValueError, RecursionError):
            raise Fault("the server's reply is no JSON (it was cut off)", again=True, paid=True) from None
        return reply_from(_without(self._key, answered))

    async def close(self) -> None:
        await self._client.close()

    def _refusal(self, error: Any) -> Fault:
        status, headers = error.status_code, error.response.headers
        said = scrubbed(_without(self._key, " ".join(str(error.message).split())))[:300]
        reason = f"the server refused ({status}): {said}"
        if status in (401, 404):
            mend = f"set {OWN_KEY} or {OPENAI_KEY}" if status == 401 else "the model's name or base_url is wrong"
            return Fault(f"{reason} - {mend}", fatal=True)
        if str(error.code) in _NO_QUOTA or str(error.type) in _NO_QUOTA:
            return Fault(reason, fatal=True)
        if status in _AGAIN or status >= 500:
            return Fault(reason, again=True, wait=_wait(headers))
        return Fault(reason)


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After is a number of seconds or a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def _without(key: str, value: Any) -> Any:
    """`value` without the key, should a server repeat it."""
    if isinstance(value, str):
        return value.replace(key, REDACTED) if len(key) >= 8 else value
    if isinstance(value, list):
        return [_without(key, item) for item in value]
    if isinstance(value, dict):
        return {_without(key, name): _without(key, item) for name, item in value.items()}
    return value
