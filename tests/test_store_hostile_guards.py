"""Each guard against hostile stores is taken out, and the soak then counts a file as accepted that it refused before.

Where two guards stand behind each other, both are taken out: that is what the second one is for.
"""

from __future__ import annotations

import json
import os

import hostile_files
import pytest
from soak_modules import soak_modules

from stores import columns, safe_h5, safe_objects, safe_text, shard

_ARRAY = safe_h5.SafeFile.array


def off(module, *names):
    return [(module, name, lambda *arguments, **named: None) for name in names]


def _followed(path):
    return os.open(path, os.O_RDONLY)


def _any_filters(safe, path, plist):
    return tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))


def _any_kind(self, path, shape=None, kinds=""):
    return _ARRAY(self, path, shape)


GUARDS = {
    "links": ("hdf5: soft_link", off(safe_objects, "_check_link", "_check_new")),
    "second names": ("hdf5: hard_alias", off(safe_objects, "_check_new")),
    "sources of virtual datasets": ("hdf5: virtual_dataset_of_many_files", off(safe_objects, "_check_sources")),
    "external storage": (
        "hdf5: external_storage",
        [*off(safe_objects, "_check_storage"), *off(safe_h5, "check_packed")],
    ),
    "filters": ("activations: unknown_filter", [(safe_objects, "_checked_filters", _any_filters)]),
    "types": ("hdf5: compound", [(safe_objects, "_plain_type", lambda kind: True)]),
    "types of attributes": ("results: reference_attribute", [(safe_objects, "_plain_type", lambda kind: True)]),
    "declared sizes": ("activations: giant_shape", off(safe_objects, "_check_size")),
    "sum of declared sizes": ("hdf5: packed_zeros", off(safe_objects, "_check_total")),
    "sizes of arrays": (
        "hdf5: too_large_an_array",
        [*off(safe_h5, "check_size_in_memory", "check_packed"), *off(safe_objects, "_check_size")],
    ),
    "sizes of chunks": ("hdf5: giant_chunk_of_one_element", off(safe_objects, "_check_chunk_size", "_check_total")),
    "sizes of unpacked chunks": ("hdf5: inflating_chunk", off(safe_h5, "check_packed")),
    "sizes of attributes": ("hdf5: giant_attribute", off(safe_objects, "_check_attribute_size")),
    "number of objects": ("hdf5: many_groups", off(safe_objects, "_check_count")),
    "superblock": ("hdf5: something_behind", off(safe_h5, "_check_beginning")),
    "chunks apart": ("activations: chunks_that_share_their_bytes", off(shard, "_check_apart")),
    "kinds of columns": ("activations: positions_that_are_fractions", [(safe_h5.SafeFile, "array", _any_kind)]),
    "lengths of columns": ("results: texts_that_overlap", off(columns, "_check_lengths")),
    "links for documents": ("activations: head_is_a_link", [(safe_text, "open_descriptor", _followed)]),
    "pipes for documents": ("results: head_is_a_pipe", [(safe_text, "open_descriptor", _followed)]),
    "links for folders": ("activations: shards_is_a_link", [(safe_text, "plain_folder", os.path.isdir)]),
    "bombs of JSON": ("activations: many_lists", [(safe_text, "_FREE_CONTAINERS", 1 << 30)]),
    "one key twice": ("activations: one_key_twice", [(safe_text, "_DECODER", json.JSONDecoder())]),
}


@pytest.fixture(scope="module")
def hostile():
    with soak_modules("hostile") as (module,):
        yield module


@pytest.mark.parametrize("guard", GUARDS)
def test_without_this_guard_a_hostile_file_is_accepted(tmp_path, monkeypatch, hostile, guard):
    name, without = GUARDS[guard]
    file = next(file for file in hostile_files.HOSTILE if file.name == name)
    loader = next(loader for loader in hostile_files.LOADERS if file.kind in loader.meets)
    monkeypatch.setattr(hostile, "KILLED_AFTER", 1)
    (before,) = hostile.tried(file, [loader], tmp_path)
    assert before.fault == ""
    for owner, attribute, instead in without:
        monkeypatch.setattr(owner, attribute, instead)
    (after,) = hostile.tried(file, [loader], tmp_path)
    assert after.fault, after
