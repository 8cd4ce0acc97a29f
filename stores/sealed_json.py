"""The JSON documents of a store (store.json and the segments of its plan): each carries the digest of its own file, so
that no byte of it changes unnoticed.

The digest is the first key: the sha256 of the whole file, with zeros in place of the digest's own 64 digits. Files of
the first version have none, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from stores import safe_text, schema
from stores.errors import StoreCorrupted, StoreMismatch
from stores.limits import LIMITS, Limits

DIGEST = "digest"
_BLANK = "0" * 64
_HEAD = re.compile(rb'\{\s*"digest": "([0-9a-f]{64})"')


def sealed(document: dict[str, Any]) -> bytes:
    """The bytes of the file of this document: lists one item a line, so that a million prompts are written fast."""
    named = {DIGEST: _BLANK, schema.A_FORMAT: schema.FORMAT, schema.A_VERSION: schema.FORMAT_VERSION, **document}
    text = "{\n" + ",\n".join(f"{json.dumps(name)}: {_written(value)}" for name, value in named.items()) + "\n}\n"
    return text.replace(_BLANK, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


def read(path: Path, limits: Limits = LIMITS) -> tuple[dict[str, Any], str]:
    """The document in this file, and the digest of the file.

    Raises StoreCorrupted (damaged), StoreMismatch (no document of ours, or of a later version), UnsafeFile.
    """
    raw = safe_text.read_bytes(path, limits.text_bytes)
    carries = _check_digest(raw, path)
    document = safe_text.parsed(raw, str(path), limits)
    try:
        found, version = document[schema.A_FORMAT], document[schema.A_VERSION]
    except (KeyError, TypeError) as error:
        raise unreadable(path, error) from error
    if found != schema.FORMAT or type(version) is not int or not 1 <= version <= schema.FORMAT_VERSION:
        raise StoreMismatch(
            f"{path}: format {found!r} version {version!r}, expected {schema.FORMAT!r} up to version "
            f"{schema.FORMAT_VERSION}. Mend: a newer version of this package reads it."
        )
    if version > 1 and not carries:
        raise StoreCorrupted(f"{path} carries no digest, as files of version {version} do: restore it from a copy.")
    return document, digest_of(raw)


def digest_of(raw: bytes) -> str:
    """The digest of a document's file: the one that it carries, or, of the first version, the hash of all of it."""
    found = _HEAD.match(raw)
    return found[1].decode() if found else hashlib.sha256(raw).hexdigest()


def unreadable(path: Path, error: Exception) -> StoreCorrupted:
    return StoreCorrupted(f"{path} cannot be read ({type(error).__name__}: {error}): restore it from a copy.")


def _check_digest(raw: bytes, path: Path) -> bool:
    """Whether these bytes carry a digest. Raises StoreCorrupted when they do not fit it."""
    found = _HEAD.match(raw)
    if found is None:
        return False
    start, stop = found.span(1)
    state = hashlib.sha256(raw[:start] + _BLANK.encode())
    state.update(memoryview(raw)[stop:])
    if state.hexdigest().encode() != found[1]:
        raise StoreCorrupted(
            f"{path}: its bytes do not fit the digest they carry (damaged, or edited by hand). Mend: restore this file "
            "from a copy; shards and logs need nothing."
        )
    return True


def _written(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n " + ",\n ".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"
    return json.dumps(value, indent=1, allow_nan=False)
