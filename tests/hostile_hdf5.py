"""What a hostile HDF5 file can hold, one function each: links out, foreign types, bombs, lies about sizes.

Each makes a thing called `name` inside of `group`; `secret` is a file that a reader must not reach. The words beside
it stand in the error that refuses it. Things that are alike to a walk, and harm whoever reads them as an array, stand
in `ARRAYS`: they take the place of a column.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t, h5z  # pyright: ignore[reportAttributeAccessIssue]

MIB = 1 << 20


def external_link(group: h5py.Group, name: str, secret: Path) -> None:
    group[name] = h5py.ExternalLink(str(secret), "/")


def external_link_inside(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_group(f"{name}/deep")["x"] = h5py.ExternalLink(str(secret), "/real")


def soft_link(group: h5py.Group, name: str, secret: Path) -> None:
    group[f"{name}_real"] = np.arange(3)
    group[name] = h5py.SoftLink(f"{group.name}/{name}_real")


def dangling_soft_link(group: h5py.Group, name: str, secret: Path) -> None:
    group[name] = h5py.SoftLink("/nothing")


def soft_loop(group: h5py.Group, name: str, secret: Path) -> None:
    group[name] = h5py.SoftLink(f"{group.name}/{name}")


def hard_alias(group: h5py.Group, name: str, secret: Path) -> None:
    group[f"{name}_real"] = np.arange(3)
    group[name] = group[f"{name}_real"]


def hard_cycle(group: h5py.Group, name: str, secret: Path) -> None:
    inner = group.create_group(f"{name}/b")
    inner["a"] = group[name]


def cycle_to_the_root(group: h5py.Group, name: str, secret: Path) -> None:
    group[name] = group.file["/"]


def external_storage(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(8,), dtype="u1", external=[(str(secret), 0, 8)])


def external_storage_in_pieces(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(8,), dtype="u1", external=[(str(secret), 0, 4), ("/dev/zero", 0, 4)])


def virtual_dataset(group: h5py.Group, name: str, secret: Path) -> None:
    _virtual(group, name, str(secret))


def virtual_dataset_of_itself(group: h5py.Group, name: str, secret: Path) -> None:
    _virtual(group, name, ".")


def virtual_dataset_of_many_files(group: h5py.Group, name: str, secret: Path) -> None:
    """secret0.h5, secret1.h5, ...: as many as there are."""
    plist, space = h5p.create(h5p.DATASET_CREATE), h5s.create_simple((3,), (h5s.UNLIMITED,))
    space.select_hyperslab((0,), (h5s.UNLIMITED,), (3,), (3,))
    plist.set_virtual(space, str(secret.with_name("secret%b.h5")).encode(), b"real", h5s.create_simple((3,)))
    h5d.create(group.id, name.encode(), h5t.STD_I64LE, h5s.create_simple((3,), (h5s.UNLIMITED,)), plist)


def _virtual(group: h5py.Group, name: str, source: str) -> None:
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(source, "real", shape=(3,))
    group.create_virtual_dataset(name, layout)


def giant_shape(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(1 << 40,), dtype="f8", chunks=(1 << 10,))


def unstored_gigabytes(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(1 << 31,), dtype="u1", chunks=(1 << 20,), compression="gzip")


def packed_zeros(group: h5py.Group, name: str, secret: Path) -> None:
    """512 MiB in half a megabyte, packed once and written many times."""
    dataset = group.create_dataset(name, shape=(512 * MIB,), dtype="u1", chunks=(4 * MIB,), compression="gzip")
    packed = zlib.compress(bytes(4 * MIB))
    for start in range(0, 512 * MIB, 4 * MIB):
        dataset.id.write_direct_chunk((start,), packed)


def giant_chunk(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(1 << 29,), dtype="u1", chunks=(1 << 29,), compression="gzip")


def giant_chunk_of_one_element(group: h5py.Group, name: str, secret: Path) -> None:
    """One element, in a chunk of 128 MiB that is unpacked to read it."""
    dataset = group.create_dataset(
        name, shape=(1,), maxshape=(None,), dtype="u1", chunks=(128 * MIB,), compression="gzip"
    )
    packer = zlib.compressobj(1)
    pieces = [packer.compress(bytes(MIB)) for _ in range(128)]
    dataset.id.write_direct_chunk((0,), b"".join((*pieces, packer.flush())))


def unknown_filter(group: h5py.Group, name: str, secret: Path) -> None:
    _filtered(group, name, (32013, h5z.FLAG_OPTIONAL, (1,)))


def filter_of_a_plugin(group: h5py.Group, name: str, secret: Path) -> None:
    _filtered(group, name, (h5z.FILTER_LZF, h5z.FLAG_OPTIONAL, (4, 261, 1 << 31)))


def filters_in_another_order(group: h5py.Group, name: str, secret: Path) -> None:
    _filtered(group, name, (h5z.FILTER_FLETCHER32, 0, ()), (h5z.FILTER_DEFLATE, 0, (4,)))


def one_filter_many_times(group: h5py.Group, name: str, secret: Path) -> None:
    _filtered(group, name, *[(h5z.FILTER_DEFLATE, 0, (4,))] * 8)


def _filtered(group: h5py.Group, name: str, *filters: tuple[int, int, tuple[int, ...]]) -> None:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((8,))
    for one in filters:
        plist.set_filter(*one)
    h5d.create(group.id, name.encode(), h5t.STD_I64LE, h5s.create_simple((8,)), plist)


def scale_offset(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, data=np.arange(8), chunks=(8,), scaleoffset=True)


def variable_text(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())


def ragged_numbers(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(2,), dtype=h5py.vlen_dtype("i8"))


def compound(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, data=np.zeros(2, dtype=[("a", "i4"), ("b", "f4")]))


def reference(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, data=np.array([group.ref], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)


def region_reference(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=(2,), dtype=h5py.regionref_dtype)


def opaque(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, data=np.zeros(2, dtype="V8"))


def array_type(group: h5py.Group, name: str, secret: Path) -> None:
    _typed(group, name, h5t.array_create(h5t.STD_I64LE, (1000, 1000)))


def other_enum(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, data=np.zeros(2, np.int8), dtype=h5py.enum_dtype({"no": 0, "yes": 77}, basetype="i1"))


def bit_field(group: h5py.Group, name: str, secret: Path) -> None:
    _typed(group, name, h5t.STD_B8LE)


def narrow_integer(group: h5py.Group, name: str, secret: Path) -> None:
    kind = h5t.STD_I32LE.copy()
    kind.set_precision(17)
    _typed(group, name, kind)


def odd_float(group: h5py.Group, name: str, secret: Path) -> None:
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(20, 15, 5, 0, 15)
    _typed(group, name, kind)


def giant_text(group: h5py.Group, name: str, secret: Path) -> None:
    kind = h5t.C_S1.copy()
    kind.set_size(1 << 30)
    _typed(group, name, kind)


def _typed(group: h5py.Group, name: str, kind: h5t.TypeID) -> None:
    h5d.create(group.id, name.encode(), kind, h5s.create_simple((2,)))


def named_type(group: h5py.Group, name: str, secret: Path) -> None:
    group[name] = np.dtype("i4")


def null_space(group: h5py.Group, name: str, secret: Path) -> None:
    group[name] = h5py.Empty("i8")


def giant_attribute(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_group(name).attrs["x"] = np.zeros(1 << 18, dtype="f8")


def ragged_attribute(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_group(name).attrs["x"] = "text of variable length"


def reference_attribute(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_group(name).attrs.create("x", group.ref, dtype=h5py.ref_dtype)


def compound_attribute(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_group(name).attrs["x"] = np.zeros(2, dtype=[("a", "i4"), ("b", "f4")])


def many_attributes(group: h5py.Group, name: str, secret: Path) -> None:
    owner, space = group.create_group(name), h5s.create(h5s.SCALAR)
    for i in range(21_000):
        h5a.create(owner.id, b"%d" % i, h5t.STD_I8LE, space)


def deep_groups(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_group("/".join([name, *"g" * 40]))


def many_groups(group: h5py.Group, name: str, secret: Path) -> None:
    owner = group.create_group(name)
    for i in range(21_000):
        h5py.h5g.create(owner.id, b"%d" % i)


CONTENTS = {
    external_link: "external link",
    external_link_inside: "external link",
    soft_link: "soft link",
    dangling_soft_link: "soft link",
    soft_loop: "soft link",
    hard_alias: "second name",
    hard_cycle: "second name",
    cycle_to_the_root: "second name",
    external_storage: "external raw storage",
    external_storage_in_pieces: "external raw storage",
    virtual_dataset: "virtual dataset",
    virtual_dataset_of_itself: "virtual dataset",
    virtual_dataset_of_many_files: "virtual dataset",
    giant_shape: "declares 8796093022208 bytes",
    unstored_gigabytes: "stores 0",
    packed_zeros: "datasets declare 5368",
    giant_chunk: "chunks of 536870912 bytes",
    giant_chunk_of_one_element: "chunks of 134217728 bytes",
    unknown_filter: "filter 32013",
    filter_of_a_plugin: "filter 32000",
    filters_in_another_order: "each once and in the order",
    one_filter_many_times: "each once and in the order",
    scale_offset: "filter 6",
    variable_text: "type that shards never hold",
    ragged_numbers: "type that shards never hold",
    compound: "type that shards never hold",
    reference: "type that shards never hold",
    region_reference: "type that shards never hold",
    opaque: "type that shards never hold",
    array_type: "type that shards never hold",
    other_enum: "type that shards never hold",
    bit_field: "type that shards never hold",
    narrow_integer: "type that shards never hold",
    odd_float: "type that shards never hold",
    giant_text: "type that shards never hold",
    named_type: "neither group nor dataset",
    null_space: "dataspace that shards never hold",
    giant_attribute: "2097152 bytes",
    ragged_attribute: "attribute b'x'",
    reference_attribute: "attribute b'x'",
    compound_attribute: "attribute b'x'",
    many_attributes: "more than 20000 objects",
    deep_groups: "groups deep",
    many_groups: "more than 20000 objects",
}
