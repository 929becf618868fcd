"""Opening a file of texts in the format that its name ends in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentiment.config.config import DataConfig
from sentiment.readers.arrow_formats import ArrowSource, ParquetSource
from sentiment.readers.blocks import FileSource
from sentiment.readers.opening import COMPRESSIONS, unpacked_suffix
from sentiment.readers.text_formats import DelimitedSource, JsonSource, LineSource, is_fasttext
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import require_file

_TEXT_FORMATS: dict[str, type[FileSource]] = {
    ".csv": DelimitedSource,
    ".tsv": DelimitedSource,
    ".tab": DelimitedSource,
    ".json": JsonSource,
    ".jsonl": JsonSource,
    ".ndjson": JsonSource,
    ".txt": LineSource,
}
_BINARY_FORMATS: dict[str, type[FileSource]] = {
    ".parquet": ParquetSource,
    ".arrow": ArrowSource,
    ".feather": ArrowSource,
}
SUFFIXES = (*_TEXT_FORMATS, *_BINARY_FORMATS)

_DEFAULTS = DataConfig()
_ADVICE = {
    ".xlsx": "save it as CSV UTF-8",
    ".xls": "save it as CSV UTF-8",
    ".pkl": "pickles may run code when they are read; write it with pandas' DataFrame.to_parquet",
    ".pickle": "pickles may run code when they are read; write it with DataFrame.to_parquet",
    ".tar": "unpack it and give the folder",
    ".tgz": "unpack it and give the folder",
}


def open_source(
    path: Path,
    data: DataConfig = _DEFAULTS,
    *,
    with_label: bool = False,
    others: Sequence[str] | None = None,
) -> FileSource:
    """A file of texts; see :class:`FileSource`.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: its format is unknown, it is broken, or it is not clear what its columns are.
    """
    require_file(path)
    suffix = unpacked_suffix(path)
    kind = _TEXT_FORMATS.get(suffix)
    is_table = data.delimiter is not None or data.column_names is not None
    if suffix == ".txt" and (is_table or (with_label and not is_fasttext(path, data))):
        kind = DelimitedSource
    if path.suffix.lower() not in COMPRESSIONS:
        kind = kind or _BINARY_FORMATS.get(suffix)
    if kind is None and suffix in _BINARY_FORMATS:
        raise UserError(f"{path}: {suffix} files are compressed already: unpack it")
    if kind is None:
        known = f"{', '.join(_TEXT_FORMATS)} (or one of these and {', '.join(COMPRESSIONS)})"
        advice = _ADVICE.get(suffix, "")
        raise UserError(
            f"{path}: cannot tell what kind of file it is: its name must end in {known}, "
            f"{' or '.join(_BINARY_FORMATS)}{f'; {advice}' if advice else ''}"
        )
    return kind(path, data, with_label=with_label, others=others)
