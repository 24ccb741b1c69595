"""Tables of results in CSV, read without pandas, for the command line. A spreadsheet may have saved them since."""

import csv
from pathlib import Path

from cem.storage.files import StoreError

AGAIN = "Make it anew: cem report FILE"


def read_csv(path: Path, again: str = AGAIN) -> list[dict[str, str]]:
    """Its rows, each with a text in every column. again: what makes the file, for an error.

    Raises FileNotFoundError where there is none, StoreError where it is no table in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{path}: expected a table in CSV and UTF-8; cannot read it: {error}. {again}") from None
    for number, row in enumerate(rows, 1):
        # csv gives None for what a row lacks, and puts what it has too much under None.
        if None in row or None in row.values():
            raise StoreError(
                f"{path}: expected {len(columns)} values in each row, found others in row {number}. {again}"
            )
    return rows
