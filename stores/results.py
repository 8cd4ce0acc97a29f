"""ResultTable: one row per (cell, prompt), committed unit by unit; a sweep that was stopped goes on where it
stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores import frames, safe_h5, schema
from stores.canonical import plain
from stores.columns import Cell, Columns, build_table, columns_of, read_table
from stores.conditions import matching
from stores.errors import UnknownName
from stores.folder import ShardFolder, Status
from stores.limits import LIMITS, Limits
from stores.plan import Unit
from stores.provenance import scrubbed
from stores.seals import Span
from stores.verifying import faults

if TYPE_CHECKING:
    import pandas


class ResultTable:
    """Flat rows of text, numbers, booleans and None, in plan order. On disk by the protocol of ActivationStore, or in
    memory only (`path=None`): the same interface, the same checks, gone with the process.
    """

    def __init__(self, folder: ShardFolder | None, spec: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        self._folder = folder
        self._spec, self._provenance = dict(spec), dict(provenance)
        self._planned: dict[str, Unit] = {}
        self._memory: dict[str, Columns] = {}
        self._read: dict[str, tuple[Status, Columns]] = {}

    @classmethod
    def create(
        cls,
        path: str | Path | None,
        *,
        spec: Mapping[str, Any],
        plan: Iterable[str | Unit],
        provenance: Mapping[str, Any],
    ) -> ResultTable:
        """A new table, or the one at `path` when it was made with an equal spec; keys that are new extend its plan.

        `plan`: the keys of the units of work (a Unit's own key, if Units are given). Raises StoreMismatch, naming the
        first keys of the spec that differ.
        """
        units = [Unit(key if isinstance(key, str) else key.key, ()) for key in plan]
        if path is None:
            table = cls(None, plain(spec), scrubbed(plain(provenance)))
            table._planned = {unit.key: unit for unit in units}
            return table
        folder = ShardFolder.create(
            path, schema.KIND_RESULTS, spec=spec, plan=units, provenance=provenance, by_prompt=False
        )
        return cls(folder, folder.manifest.spec, folder.manifest.provenance)

    @classmethod
    def open(cls, path: str | Path, limits: Limits = LIMITS) -> ResultTable:
        """The table at `path`. Needs neither the log nor write permission. `limits`: what its files may declare."""
        folder = ShardFolder.open(path, schema.KIND_RESULTS, limits)
        return cls(folder, folder.manifest.spec, folder.manifest.provenance)

    # What it is

    @property
    def path(self) -> Path | None:
        """Its folder; None for a table in memory."""
        return None if self._folder is None else self._folder.path

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self._spec)

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self._provenance)

    @property
    def origin(self) -> dict[str, str]:
        """The attributes that every file made from this table carries; none of a table in memory."""
        return {} if self._folder is None else dict(self._folder.origin)

    @property
    def plan(self) -> list[str]:
        """Keys of all units, in order."""
        return list(self._planned if self._folder is None else self._folder.units)

    def __len__(self) -> int:
        return sum(_height(columns) for columns in self._tables())

    def __repr__(self) -> str:
        planned = len(self.plan)
        return (
            f"ResultTable({self.path or 'in memory'}: {planned - len(self.missing())} of {planned} units, "
            f"{len(self)} rows, "
            f"columns {', '.join(self.columns)})"
        )

    # Writing

    def missing(self) -> list[str]:
        """Keys of the units that have no rows yet, in plan order, as the disk is now."""
        if self._folder is None:
            return [key for key in self._planned if key not in self._memory]
        return [unit.key for unit in self._folder.missing()]

    def commit(self, key: str | Unit, rows: Sequence[Mapping[str, Any]], note: str = "") -> bool:
        """Makes the rows of one unit durable. False: another writer was first, and its rows were verified and kept.
        `note` is stored with them (such as "split: out of memory").

        Raises ValueError for a key that is not planned, or a value that is no str, int, float, bool or None.
        """
        key = key if isinstance(key, str) else key.key
        columns = columns_of(rows, f"Unit {key!r}")
        if self._folder is None:
            if key not in self._planned:
                raise ValueError(f"Unit {key!r} is not in the plan of this table: expected a key from `missing()`.")
            return self._memory.setdefault(key, columns) is columns
        unit = self._folder.checked_unit(Unit(key, ()))
        data = build_table(self._folder.root_attributes(unit, note), columns)
        return self._folder.commit(unit, data, {"rows": len(rows)}, confirm=lambda: self.checked(unit))

    # Checking

    def verify(self, deep: bool = False) -> list[str]:
        """One line a fault, naming file and mend; an empty list is a sound table. Fast by names and sizes; `deep` reads
        every byte, as ActivationStore.verify does."""
        return [] if self._folder is None else faults(self._folder, self.checked, deep)

    # Reading

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in the order in which they first appear."""
        return list(dict.fromkeys(name for columns in self._tables() for name in columns))

    def rows(self, **conditions: Any) -> list[dict[str, Cell]]:
        """Rows for which all conditions hold (value, collection of values, or predicate), as dicts with every column.

        What a row was committed without is None. No match gives an empty list; an unknown column raises UnknownName.
        """
        names = self._known(conditions)
        tests = {name: matching(condition) for name, condition in conditions.items()}
        out = []
        for columns in self._tables():
            absent: list[Cell] = [None] * _height(columns)
            for values in zip(*(columns.get(name, absent) for name in names), strict=True):
                row = dict(zip(names, values, strict=True))
                if all(test(row[name]) for name, test in tests.items()):
                    out.append(row)
        return out

    def column(self, name: str) -> list[Cell]:
        """One column, in the order of `rows()`."""
        self._known([name])
        return [value for columns in self._tables() for value in columns.get(name, [None] * _height(columns))]

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a data frame. Raises ImportError, with the install command, where pandas is missing."""
        return frames.data_frame(self.rows(), self.columns)

    def _repr_html_(self) -> str:
        return frames.html_table(repr(self), self.rows())

    # Inside

    def _known(self, names: Iterable[str]) -> list[str]:
        columns = self.columns
        for name in names:
            if name not in columns:
                raise UnknownName(f"No column {name!r}: there are {', '.join(columns) or 'none yet'}.")
        return columns

    def _tables(self) -> list[Columns]:
        if self._folder is None:
            return [self._memory[key] for key in self._planned if key in self._memory]
        tables = []
        for unit, status in self._folder.committed():
            if unit.key not in self._read or self._read[unit.key][0] != status:
                self._read[unit.key] = status, self._columns_of_unit(unit)
            tables.append(self._read[unit.key][1])
        return tables

    def checked(self, unit: Unit) -> list[Span]:
        """Reads one whole shard, as `verify(deep=True)` does. Raises StoreCorrupted, UnsafeFile. (Values lie nowhere
        apart: nothing in a result shard is outside its whole hash.)"""
        self._columns_of_unit(unit)
        return []

    def _columns_of_unit(self, unit: Unit) -> Columns:
        assert self._folder is not None
        with safe_h5.opened(self._folder.shard_path(unit), self._folder.limits) as file:
            self._folder.check_identity(file, unit)
            return read_table(file)


def _height(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))
