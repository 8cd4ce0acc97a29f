"""stores: activations and results on disk, sealed, hashed and resumable. Knows no model and imports no torch."""

from stores import provenance as provenance
from stores.block import Block as Block
from stores.canonical import canonical_json as canonical_json
from stores.canonical import content_key as content_key
from stores.errors import NoRows as NoRows
from stores.errors import NotFinite as NotFinite
from stores.errors import StoreCorrupted as StoreCorrupted
from stores.errors import StoreError as StoreError
from stores.errors import StoreMismatch as StoreMismatch
from stores.errors import StoreMissing as StoreMissing
from stores.errors import UnknownName as UnknownName
from stores.errors import UnsafeFile as UnsafeFile
from stores.errors import WriteFailed as WriteFailed
from stores.estimate import bytes_of as bytes_of
from stores.limits import Limits as Limits
from stores.plan import Stream as Stream
from stores.plan import Unit as Unit
from stores.results import ResultTable as ResultTable
from stores.store import ActivationStore as ActivationStore
from stores.view import Rows as Rows

__all__ = [
    "ActivationStore",
    "Block",
    "Limits",
    "NoRows",
    "NotFinite",
    "ResultTable",
    "Rows",
    "StoreCorrupted",
    "StoreError",
    "StoreMismatch",
    "StoreMissing",
    "Stream",
    "Unit",
    "UnknownName",
    "UnsafeFile",
    "WriteFailed",
    "bytes_of",
    "canonical_json",
    "content_key",
    "provenance",
]
