"""Secrets in what is written: known by their shape, by their name, or because the environment holds them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stores.errors import StoreError

REDACTED = "<redacted>"

_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:api[_\-]?key|key|token|secret|password|passwd|credentials?|auth)s?$", re.IGNORECASE
)
_HARMLESS_NAME = re.compile(
    r"(?:^|[_\-.])(?:(?:content|unit|pad|eos|bos|image|max|special)[_\-.]?(?:key|token)s?|tokens)$", re.IGNORECASE
)
_SECRET_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{12,}|gh[pousr]_[A-Za-z0-9]{16,}"
    r"|github_pat_[A-Za-z0-9_]{16,}|xox[abpr]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,})"
)
_PICTURE = re.compile(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+")  # random letters: any shape is there by chance
_SCANNED = (".json", ".html", ".md", ".txt", ".csv")


class SecretFound(StoreError, ValueError):
    """What was to be written holds what looks like a secret: nothing was written."""


def names_a_secret(name: str) -> bool:
    """Whether something of this name is a secret whatever it says: `api_key`, `HF_TOKEN`; not `pad_token`."""
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def redacted(value: Any) -> Any:
    """`value` with "<redacted>" in place of known shapes (hf_..., sk-...), of the values of *_KEY and *_TOKEN
    variables, and of anything kept under a secret's name. Twice changes nothing."""
    return _redacted(value, "", environment_secrets())


def _redacted(value: Any, name: str, known: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _redacted(item, str(key), known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, name, known) for item in value]
    if not isinstance(value, str):
        return value
    if value and names_a_secret(name):
        return REDACTED
    for secret in known:
        value = value.replace(secret, REDACTED)
    return _SECRET_SHAPES.sub(REDACTED, value)


def secrets_in(value: Any) -> list[str]:
    """The places inside `value` that hold what looks like a secret: `["model.path"]`."""
    return list(_secrets_in(value, "", environment_secrets()))


def _secrets_in(value: Any, where: str, known: list[str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets_in(item, f"{where}.{key}" if where else str(key), known)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _secrets_in(item, f"{where}[{i}]", known)
    elif isinstance(value, str) and (any(secret in value for secret in known) or _SECRET_SHAPES.search(value)):
        yield where


def refuse_secrets(content: str | bytes, path: Path) -> None:
    """Raises SecretFound where a file for people (.json, .html, .md, .txt, .csv) would hold a secret. Data of the
    user's own (.jsonl) and arrays are no matter here."""
    if path.suffix.lower() not in _SCANNED:
        return
    text = _PICTURE.sub("", content.decode("utf-8", "replace") if isinstance(content, bytes) else content)
    held = next((secret for secret in environment_secrets() if secret in text), None)
    shape = _SECRET_SHAPES.search(text)
    if held is not None or shape is not None:
        what = "the value of a *_KEY, *_TOKEN or *_PASSWORD variable" if shape is None else f"{shape.group()[:4]}..."
        raise SecretFound(
            f"{path} was not written: it would hold what looks like a secret ({what}). Expected it taken out of what "
            "is written (a command line, a path, an answer): stores.secret_text.redacted(...) does that."
        )


def environment_secrets() -> list[str]:
    """Longest first, so that a secret that contains another leaves no remainder. Short values would redact
    ordinary words."""
    values = {value for name, value in os.environ.items() if names_a_secret(name) and len(value) >= 8}
    return sorted(values, key=len, reverse=True)
