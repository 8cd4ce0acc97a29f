"""Plain rows as others want them: an HTML table for a notebook, a pandas data frame."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

SHOWN = 20  # rows of an HTML table


def html_table(caption: str, rows: Sequence[Mapping[str, Any]], shown: int = SHOWN) -> str:
    """A table with the columns of its first row, at most `shown` rows; whatever stands in it is text, never markup."""
    names = list(rows[0]) if rows else []
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(row.get(name))}</td>" for name in names) + "</tr>" for row in rows[:shown]
    )
    more = f"<p>and {len(rows) - shown:,} more rows</p>" if len(rows) > shown else ""
    return f"<p>{_text(caption)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pandas.DataFrame:
    """The rows as a pandas data frame. Raises ImportError, with the install command, where pandas is missing."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas() needs pandas: pip install pandas. Without it, rows() gives dicts.") from error
    return pandas.DataFrame(list(rows), columns=None if columns is None else list(columns))


def _text(value: Any) -> str:
    """Floats at four significant digits, nothing for None; escaped."""
    shown = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return html.escape(shown if len(shown) <= 200 else shown[:197] + "...")
