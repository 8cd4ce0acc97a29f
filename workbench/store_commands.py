"""The commands on stores: verify, repair, merge, export, info. Each calls one public function."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]
_GIB = 1 << 30


def add_store_commands(command: Command) -> None:
    """`command(name, run, says, example)` makes each one's parser."""
    verify = command("verify", _verify, "whether a store is what was committed", "workbench verify runs/s --deep")
    verify.add_argument("store", type=Path, help="a store's folder; with --untrusted also one HDF5 file")
    verify.add_argument("--deep", action="store_true", help="read every byte: hashes and values, not names and sizes")
    verify.add_argument(
        "--untrusted", action="store_true", help="read every byte in a process with limits: for files of strangers"
    )
    verify.add_argument("--memory", type=float, default=1.0, metavar="GIB", help="of that process (1)")
    verify.add_argument("--seconds", type=int, default=300, help="of that process (300)")
    _json(verify)

    repair = command(
        "repair", _repair, "move damage out of a store's way, write its logs anew", "workbench repair runs/s"
    )
    repair.add_argument("store", type=Path)
    _json(repair)

    merge = command("merge", _merge, "several stores of one spec into one", "workbench merge part0 part1 --to runs/s")
    merge.add_argument("stores", type=Path, nargs="+")
    merge.add_argument("--to", type=Path, required=True, help="a new store, or one of this spec that takes more")
    merge.add_argument("--copy", action="store_true", help="copy shards where a hard link would do")
    _json(merge)

    export = command("export", _export, "a store as one file", "workbench export runs/s --to all.h5 --dtype float32")
    export.add_argument("store", type=Path)
    export.add_argument("--to", type=Path, help="the new file, or folder of NumPy files; not with --format index")
    export.add_argument("--format", choices=("hdf5", "numpy", "index"), default="hdf5", help="index: virtual datasets")
    export.add_argument("--dtype", choices=("as stored", "float32", "float16"), default="as stored")

    info = command("info", _info, "what a store holds, whose, how much, from where", "workbench info runs/s")
    info.add_argument("store", type=Path)
    _json(info)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _verify(a: argparse.Namespace) -> int:
    from stores.opening import verify_store

    if a.untrusted:
        from stores.untrusted import verify_untrusted

        faults = verify_untrusted(a.store, memory=int(a.memory * _GIB), seconds=a.seconds)
    else:
        faults = verify_store(a.store, deep=a.deep)
    how = "every byte" if a.deep or a.untrusted else "by names and sizes; --deep reads every byte"
    if a.json:
        print(json.dumps({"store": str(a.store), "sound": not faults, "deep": a.deep or a.untrusted, "faults": faults}))
    else:
        print("\n".join(faults) or f"{a.store}: every shard is what was committed ({how})")
    return 3 if faults else 0


def _repair(a: argparse.Namespace) -> int:
    from stores.repairing import repair_store

    deeds = repair_store(a.store)
    if a.json:
        print(json.dumps({"store": str(a.store), "done": deeds}))
    else:
        print("\n".join(deeds) or f"{a.store}: nothing to mend")
    return 0


def _merge(a: argparse.Namespace) -> int:
    from stores.merging import merge_stores

    merged = merge_stores(a.stores, a.to, link=not a.copy)
    planned, missing = len(merged.plan), len(merged.missing())
    if a.json:
        print(json.dumps({"store": str(a.to), "planned": planned, "missing": missing}))
    else:
        print(merged)
    return 0


def _export(a: argparse.Namespace) -> int:
    from stores.exporting import export_store, index_store

    if (a.format == "index") != (a.to is None):
        raise ValueError("expected --to FILE for hdf5 and numpy, and none for index, which stands inside its store.")
    if a.format == "index":
        print(index_store(a.store))
    else:
        print(export_store(a.store, a.to, form=a.format, dtype=a.dtype))
    return 0


def _info(a: argparse.Namespace) -> int:
    from stores.about import store_info

    facts = store_info(a.store)
    print(json.dumps(facts, indent=2) if a.json else "\n".join(described(facts)))
    return 0


def described(facts: dict[str, Any]) -> list[str]:
    """What `store_info` found, a line a subject."""
    units, commits = facts["units"], facts["commits"]
    lines = [
        f"{facts['path']}: {facts['kind']}, format {facts['format_version']}, {facts['bytes']:,} bytes",
        f"units    {units['committed']:,} of {units['planned']:,} committed, planned in {units['appends']} appends; "
        f"{facts['prompts']:,} prompts",
    ]
    for stream in facts.get("streams", []):
        kept = ", ".join(f"{name} {count:,}" for name, count in stream.get("variants", {}).items())
        labels = ", ".join(f"{name} {count:,}" for name, count in list(stream.get("labels", {}).items())[:8])
        size = f"{len(stream['layers'])} layers, d_model {stream['d_model']}, {stream['dtype']}"
        lines += [
            f"stream   {stream['name']}: {size}",
            f"         {stream['rows']:,} rows ({kept or 'none yet'}); labels {labels or 'none'}",
        ]
    if "columns" in facts:
        lines.append(f"rows     {facts['rows']:,}; columns {', '.join(facts['columns'])}")
    when = f"{commits['first']} to {commits['last']}" if commits["first"] else "no log"
    lines.append(f"commits  {when}, {commits['writers']} writers")
    lines += [f"         merged from {source}" for source in commits["merged_from"]]
    if facts["quarantine"]:
        lines.append(f"damage   {facts['quarantine']} files in quarantine/")
    lines += [f"spec     {name} = {json.dumps(value)}" for name, value in facts["spec"].items()]
    lines += [f"origin   {name} = {json.dumps(value)}" for name, value in facts["provenance"].items()]
    return lines
