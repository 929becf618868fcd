"""Which kind of file a name means."""

from __future__ import annotations

from pathlib import Path

from sentiment.predicting.delimited_source import DelimitedSource, LineSource
from sentiment.predicting.json_source import JsonLinesSource
from sentiment.predicting.sources import FileSource, unpacked_suffix

_TEXT_SOURCES: dict[str, type[FileSource]] = {
    ".csv": DelimitedSource,
    ".tsv": DelimitedSource,
    ".jsonl": JsonLinesSource,
    ".txt": LineSource,
}
OUTPUT_FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def open_source(path: Path, text_column: str) -> FileSource:
    """A file of texts, by the ending of its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of no kind that can be read, is broken, or has no such column.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file of texts")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".parquet":
        from sentiment.predicting.parquet_source import ParquetSource  # loads pyarrow

        return ParquetSource(path, text_column)
    kind = _TEXT_SOURCES.get(unpacked_suffix(path))
    if kind is None:
        raise ValueError(
            f"{path}: cannot tell what kind of file it is: its name must end in "
            f"{', '.join(_TEXT_SOURCES)} (or one of these and .gz) or .parquet"
        )
    return kind(path, text_column)


def output_format(path: Path) -> str:
    """The ending of an output's name.

    Raises:
        ValueError: nothing is written in that format.
    """
    if path.suffix not in OUTPUT_FORMATS:
        raise ValueError(
            f"{path}: its name must end in {', '.join(OUTPUT_FORMATS)}, which decides the format"
        )
    return path.suffix
