"""A CSV or TSV file with a header, read as strictly as JSON Lines are."""

import csv
import io
from pathlib import Path

from slimtune.data import JsonlRows, decode_utf8, open_data
from slimtune.errors import Problem, UserError

_CAP_BYTES = 1 << 30


def read_table(path: Path) -> JsonlRows:
    """The rows of a .csv (comma) or .tsv (tab) file in UTF-8 as objects of texts, each with the line it ends on.

    Bad rows, with more or fewer cells than the header, are returned in `skipped`. Raises UserError for a file that
    is not there, not UTF-8, above 1 GiB, without a header, or with a quote that is never closed.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), _dialect(path), strict=True)
    rows, bad = [], []
    try:
        header = next(reader, [])
        _check_header(path, header)
        for cells in reader:
            if len(cells) == len(header):
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
            elif cells:
                what = f"has {len(cells)} cells where the header has {len(header)}"
                bad.append(Problem(f"{path.name}:{reader.line_num}", what))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}. Is a quote never closed, or doubled wrongly?") from error
    return JsonlRows(tuple(rows), tuple(bad))


def _text(path: Path) -> str:
    with open_data(path) as file:
        data = file.read(_CAP_BYTES + 1)
    if len(data) > _CAP_BYTES:
        raise UserError(f"{path} is larger than 1 GiB. Turn it into JSON Lines, which are read line by line.")
    try:
        return decode_utf8(data).removeprefix("\ufeff")
    except ValueError as error:
        raise UserError(f"{path} {error}.") from error


def _dialect(path: Path) -> type[csv.Dialect]:
    return csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel


def _check_header(path: Path, header: list[str]) -> None:
    if not any(name.strip() for name in header):
        raise UserError(f"{path} has no header: its first line must name the columns.")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"{path} has these columns twice: {', '.join(twice)}.")
    if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), "")):
        raise UserError(
            f"{path} seems to be divided by {mark!r}, not by commas. Save it as .csv with commas, or as .tsv."
        )
