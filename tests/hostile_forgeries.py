"""Forged stores, as data: which document or column, what is put there, and the words of the error that refuses it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile_stores import column, document, forged, new_identity

Make = Callable[[Path], None]
SEGMENT = "plan/000000.json"


def _resealed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """The document with a piece replaced and the digest that fits: what a JSON writer would not write."""

    def make(raw: bytes) -> bytes:
        assert old in raw
        blank = re.sub(
            rb'"digest": "[0-9a-f]{64}"', b'"digest": "' + b"0" * 64 + b'"', raw.replace(old, new, 1), count=1
        )
        return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)

    return make


def _without_digest(raw: bytes) -> bytes:
    found = json.loads(raw)
    del found["digest"]
    return json.dumps(found).encode()


SPEC = b'"spec": {'
DOCUMENTS: dict[Make, str] = {
    document("deep_lists", b"[" * 50_000): "64 deep",
    document("deep_objects", b'{"a":' * 50_000): "64 deep",
    document("deep_spec", _resealed(SPEC, SPEC + b'"x": ' + b"[" * 70_000 + b"]" * 70_000 + b",")): "64 deep",
    document("many_lists", b"[" + b"[]," * 5_000_000 + b"0]"): "refused as a bomb",
    document("many_objects", _resealed(SPEC, SPEC + b'"x": [' + b'{"a":1},' * 2_000_000 + b"0],")): "refused as a bomb",
    document("not_a_number", _resealed(SPEC, SPEC + b'"x": NaN,')): "NaN is no JSON",
    document("infinite_number", _resealed(SPEC, SPEC + b'"x": 1e999,')): "beyond every float",
    document("million_digits", _resealed(SPEC, SPEC + b'"x": ' + b"9" * 1_000_000 + b",")): "not JSON as expected",
    document("one_key_twice", _resealed(b'"units": [', b'"units": [], "units": ['), SEGMENT): "stands there twice",
    document("no_text", b"\xff\xfe" + "{}".encode("utf-16-le")): "not JSON as expected",
    document("empty_document", b""): "not JSON as expected",
    document("half_a_document", lambda raw: raw[: len(raw) // 2]): "digest",
    document("pickled_document", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."): "not JSON",
    document("list_for_a_document", b"[1, 2]"): "cannot be read",
    document("text_for_a_document", b'"format"'): "cannot be read",
    document("document_without_digest", _without_digest): "carries no digest",
    document("segment_without_digest", _without_digest, SEGMENT): "carries no digest",
    document("deep_segment", b"[" * 50_000, SEGMENT): "64 deep",
    document("flipped_segment", lambda raw: raw.replace(b"units", b"Units"), SEGMENT): "do not fit the digest",
    forged("version_of_tomorrow", lambda d: d.update(format_version=99)): "up to version",
    forged("version_true", lambda d: d.update(format_version=True)): "up to version",
    forged("version_as_text", lambda d: d.update(format_version="2")): "up to version",
    forged("another_format", lambda d: d.update(format="pickle")): "expected 'misalignment-workbench-store'",
    forged("another_kind", lambda d: d.update(kind="adapters")): "is a store of adapters|kind 'adapters'",
    forged("kind_that_is_a_list", lambda d: d.update(kind=["results"])): "is a store of|cannot be read",
    forged("another_content_key", lambda d: d.update(content_key="0" * 64)): "content key does not fit",
    forged("another_spec", lambda d: d["spec"].update(model="other")): "content key does not fit",
    forged("spec_that_is_a_list", lambda d: d.update(spec=[1])): "expected an object|came list",
    forged("provenance_that_is_text", lambda d: d.update(provenance="me")): "expected an object|came str",
    forged("no_spec", lambda d: d.pop("spec")): "KeyError: 'spec'",
    forged("streams_that_are_a_number", lambda d: d.update(streams=7)): "cannot be read",
    forged("segment_of_another_number", lambda d: d.update(segment=3), SEGMENT): "it is segment 3",
    forged("segment_of_another_store", lambda d: d.update(follows="0" * 64), SEGMENT): "does not follow",
    forged("units_that_are_text", lambda d: d.update(units="abc"), SEGMENT): "cannot be read",
    forged("unit_with_a_number_for_a_key", lambda d: d["units"][0].update(key=7), SEGMENT): "expected text",
    forged("unit_twice", lambda d: d["units"].append(d["units"][0]), SEGMENT): "a unit or a prompt twice",
    forged("unit_without_a_key", lambda d: d["units"][0].update(key=""), SEGMENT): "non-empty text",
    forged("unit_key_with_nul", lambda d: d["units"][0].update(key="a\0b"), SEGMENT): "without NUL",
    forged("prompts_that_are_numbers", lambda d: d.update(prompts=[1, 2]), SEGMENT): "cannot be read",
}


def _stream(**changes: object) -> Callable[[dict], None]:
    return lambda found: found["streams"][0].update(changes)


AT = "activations/resid_post"
FORGED_ACTIVATIONS: dict[Make, str] = {
    forged("stream_out_of_the_folder", _stream(name="../../x")): "expected letters",
    new_identity("d_model_of_a_fraction", _stream(d_model=24.0)): "cannot be read",
    new_identity("d_model_below_nothing", _stream(d_model=-24)): "expected at least 1",
    new_identity("d_model_beyond_memory", _stream(d_model=1 << 62)): "has shape",
    new_identity("no_layers", _stream(layers=[])): "at least one",
    new_identity("too_many_layers", _stream(layers=list(range(10_001)))): "at most 10000",
    new_identity("dtype_object", _stream(dtype="object")): "expected one of",
    new_identity("another_dtype", _stream(dtype="float16")): "expected",
    new_identity("stream_with_more_in_it", _stream(code="import os")): "unexpected keyword",
    new_identity("stream_of_no_shard", _stream(name="vision.resid_post")): "is missing",
    forged("prompt_twice", lambda d: d["prompts"].append(d["prompts"][0]), SEGMENT): "occurs twice",
    forged("prompt_without_an_id", lambda d: d["prompts"][0].pop("id"), SEGMENT): "expected an 'id'",
    forged("prompt_with_nul", lambda d: d["prompts"][0].update(id="a\0"), SEGMENT): "without NUL",
    forged("prompt_with_more_in_it", lambda d: d["prompts"][0].update(__class__="os"), SEGMENT): "own keys belong",
    forged("prompts_that_have_no_record", lambda d: d["prompts"].pop(), SEGMENT): "no record",
    forged("units_of_other_prompts", lambda d: d["units"][0].update(prompt_ids=["p0"]), SEGMENT): "unit_prompts",
    column("positions_that_are_fractions", f"{AT}/position", lambda old: old.astype("f8")): "holds float64",
    column("positions_that_are_text", f"{AT}/position", lambda old: old.astype("S4")): "holds [|]S4",
    column("fewer_positions", f"{AT}/position", lambda old: old[:-1]): "differ in length",
    column("tokens_in_two_dimensions", f"{AT}/token_id", lambda old: old.reshape(-1, 1)): "has shape",
    column("prompt_ids_that_are_numbers", f"{AT}/prompt_id", lambda old: np.arange(len(old))): "holds int64",
    column("prompt_ids_of_nobody", f"{AT}/prompt_id", lambda old: np.full_like(old, b"p9")): "not a prompt of its unit",
    column("prompt_ids_that_are_no_text", f"{AT}/prompt_id", lambda old: np.full_like(old, b"\xff")): "cannot be read",
    column("other_layers", f"{AT}/layer", lambda old: old + 1): "has layers",
    column("layers_that_are_fractions", f"{AT}/layer", lambda old: old.astype("f4")): "holds float32",
    column("values_of_another_type", f"{AT}/values", lambda old: old.astype("i4")): "expected .* of float32",
    column("values_of_another_shape", f"{AT}/values", lambda old: old[:, :, :-1]): "has shape",
    column("values_in_one_piece", f"{AT}/values", lambda old: old): "not in unfiltered chunks",
    column("hashes_of_zero", "chunk_xxh3_128/resid_post", np.zeros_like): "does not fit its hash",
    column("hashes_of_another_shape", "chunk_xxh3_128/resid_post", lambda old: old[:1]): "has shape",
    column("hashes_that_are_fractions", "chunk_xxh3_128/resid_post", lambda old: old / 2): "holds float64",
}


def _order(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _without_last(old: np.ndarray) -> np.ndarray:
    return old[:-1]


FORGED_RESULTS: dict[Make, str] = {
    column("order_that_is_no_json", "column_order", _order("import os")): "not JSON",
    column("order_that_is_deep", "column_order", _order("[" * 100_000)): "64 deep",
    column("order_of_objects", "column_order", _order('{"x": "int"}')): "columns",
    column("order_that_names_twice", "column_order", _order('[["x", "int"], ["x", "int"]]')): "named twice",
    column("order_of_unknown_kinds", "column_order", _order('[["x", "pickle"]]')): "unknown kinds",
    column("order_of_other_kinds", "column_order", _order('[["x", "float"]]')): "holds int64",
    column("order_out_of_the_folder", "column_order", _order('[["../null/x", "bool"]]')): "is missing",
    column("fractions_in_whole_numbers", "columns/x", lambda old: old + 0.5): "holds float64",
    column("fewer_numbers", "columns/x", _without_last): "different heights",
    column("masks_of_numbers", "null/x", lambda old: old.astype("i8")): "holds int64",
    column("fewer_masks", "null/x", _without_last): "different heights",
    column("texts_that_overlap", "offsets/y", lambda old: old[::-1].copy()): "one behind the other",
    column("texts_beyond_the_end", "offsets/y", lambda old: old + 1): "one behind the other",
    column("fewer_texts", "offsets/y", _without_last): "one behind the other",
    column("texts_at_fractions", "offsets/y", lambda old: old.astype("f8")): "holds float64",
    column("text_that_is_no_text", "columns/y", lambda old: np.full_like(old, 0xFF)): "cannot be read",
    column("cell_that_is_a_list", "columns/m", lambda old: np.full_like(old, ord("["))): "expected text, a number",
    column("cell_that_is_no_json", "columns/m", lambda old: np.full_like(old, ord("-"))): "cannot be read",
}
