"""`workbench verify`, `repair`, `merge`, `export` and `info`: the commands on stores."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from workbench.commands.said import DONE, FAULTY, Add, Said

_GIB = 1 << 30


def add_stores(add: Add) -> None:
    verify = add("verify", _verify, "whether a store is what was committed", "workbench verify runs/shift --deep")
    verify.add_argument("store", type=Path, help="a store's folder; with --untrusted also one HDF5 file")
    verify.add_argument("--deep", action="store_true", help="read every byte: hashes and values, not names and sizes")
    verify.add_argument(
        "--untrusted", action="store_true", help="read every byte in a process with limits: for files of strangers"
    )
    verify.add_argument("--memory", type=float, default=1.0, metavar="GIB", help="of that process")
    verify.add_argument("--seconds", type=int, default=300, help="of that process")

    repair = add(
        "repair", _repair, "move damage out of a store's way, write its logs anew", "workbench repair runs/shift"
    )
    repair.add_argument("store", type=Path)

    merge = add(
        "merge",
        _merge,
        "several stores of one spec into one",
        "workbench merge runs/part0 runs/part1 --to runs/merged",
        resumes=True,
    )
    merge.add_argument("stores", type=Path, nargs="+")
    merge.add_argument("--to", type=Path, required=True, help="a new store, or one of this spec that takes more")
    merge.add_argument("--copy", action="store_true", help="copy shards where a hard link would do")

    export = add(
        "export", _export, "a store as one file", "workbench export runs/shift --to runs/all.h5 --dtype float32"
    )
    export.add_argument("store", type=Path)
    export.add_argument("--to", type=Path, help="the new file, or folder of NumPy files; not with --format index")
    export.add_argument("--format", choices=("hdf5", "numpy", "index"), default="hdf5", help="index: virtual datasets")
    export.add_argument("--dtype", choices=("as stored", "float32", "float16"), default="as stored")

    info = add("info", _info, "what a store holds, whose, how much, from where", "workbench info runs/shift")
    info.add_argument("store", type=Path)


def _verify(a: argparse.Namespace) -> Said:
    import workbench as wb

    _refuse_what_is_no_folder(a.store, one_file=a.untrusted)
    if a.untrusted:
        faults = wb.verify_untrusted(a.store, memory=int(a.memory * _GIB), seconds=a.seconds)
    else:
        faults = wb.verify_store(a.store, deep=a.deep)
    deep = a.deep or a.untrusted
    how = "every byte" if deep else "by names and sizes; --deep reads every byte"
    facts = {"store": str(a.store), "sound": not faults, "deep": deep, "faults": faults}
    said = "\n".join(faults) or f"{a.store}: every shard is what was committed ({how})"
    then = f"workbench repair {a.store}, and the command that made it{_made_by(a.store)}" if faults else ""
    return Said(said, facts, FAULTY if faults else DONE, "" if a.untrusted else then)


def _repair(a: argparse.Namespace) -> Said:
    import workbench as wb

    _refuse_what_is_no_folder(a.store)
    deeds = wb.repair_store(a.store)
    left = wb.verify_store(a.store)
    said = "\n".join(deeds or left) or f"{a.store}: nothing to mend"
    then = f"the command that made it{_made_by(a.store)}; it makes the missing units anew" if left else ""
    return Said(said, {"store": str(a.store), "done": deeds, "left": left}, FAULTY if left else DONE, then)


def _merge(a: argparse.Namespace) -> Said:
    import workbench as wb

    merged = wb.merge_stores(a.stores, a.to, link=not a.copy)
    facts = {"store": str(a.to), "planned": len(merged.plan), "missing": len(merged.missing())}
    return Said(str(merged), facts)


def _export(a: argparse.Namespace) -> Said:
    import workbench as wb

    _refuse_what_is_no_folder(a.store)
    if (a.format == "index") != (a.to is None):
        raise ValueError("expected --to FILE for hdf5 and numpy, and none for index, which stands inside its store.")
    if a.format == "index":
        written = wb.index_store(a.store)
    else:
        written = wb.export_store(a.store, a.to, form=a.format, dtype=a.dtype)
    return Said(str(written), {"store": str(a.store), "to": str(written), "format": a.format, "dtype": a.dtype})


def _info(a: argparse.Namespace) -> Said:
    import workbench as wb

    _refuse_what_is_no_folder(a.store)
    facts = wb.store_info(a.store)
    return Said("\n".join(described(facts)), facts)


def described(facts: dict[str, Any]) -> list[str]:
    """What `store_info` found, a line a subject."""
    units, commits = facts["units"], facts["commits"]
    lines = [
        f"{facts['path']}: {facts['kind']}, format {facts['format_version']}, {facts['bytes']:,} bytes",
        f"units    {units['committed']:,} of {units['planned']:,} committed, planned in "
        f"{_counted(units['appends'], 'append')}; {facts['prompts']:,} prompts",
    ]
    for stream in facts.get("streams", []):
        kept = ", ".join(f"{name} {count:,}" for name, count in stream.get("variants", {}).items())
        labels = ", ".join(f"{name} {count:,}" for name, count in list(stream.get("labels", {}).items())[:8]
                           if name != "None")  # fmt: skip
        size = f"{_counted(len(stream['layers']), 'layer')}, d_model {stream['d_model']}, {stream['dtype']}"
        lines += [
            f"stream   {stream['name']}: {size}",
            f"         {stream['rows']:,} rows ({kept or 'none yet'}){labels and f'; labels {labels}'}",
        ]
    if "columns" in facts:
        lines.append(f"rows     {facts['rows']:,}; columns {', '.join(facts['columns'])}")
    when = f"{commits['first']} to {commits['last']}" if commits["first"] else "no log"
    lines.append(f"commits  {when}, {_counted(commits['writers'], 'writer')}")
    lines += [f"         merged from {source}" for source in commits["merged_from"]]
    if facts["quarantine"]:
        lines.append(f"damage   {facts['quarantine']} files in quarantine/")
    lines += [f"spec     {name} = {json.dumps(value)}" for name, value in facts["spec"].items()]
    lines += [f"origin   {name} = {json.dumps(value)}" for name, value in facts["provenance"].items()]
    return lines


def _refuse_what_is_no_folder(store: Path, *, one_file: bool = False) -> None:
    if not store.exists():
        raise FileNotFoundError(f"{store} is not there: expected a store's folder.")
    if store.is_file() and not one_file:
        raise ValueError(
            f"{store} is a file: expected a store's folder. One HDF5 file is read by `workbench verify FILE "
            "--untrusted`, and by h5py or xarray."
        )


def _made_by(store: Path) -> str:
    """`: COMMAND` where the files of the store still tell; nothing else."""
    from stores.errors import StoreError
    from stores.folder import ShardFolder

    try:
        words = ShardFolder.open(store, whole=False).manifest.provenance.get("command")
    except StoreError:
        return ""
    if not isinstance(words, list) or not words:
        return ""
    first, *rest = map(str, words)
    ours = Path(first).name in ("workbench", "cli.py")
    return f": {shlex.join([*(['workbench'] if ours else ['python', first]), *rest])}"


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
