"""The folders that are written to: whether they can be, and for how long."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sentiment.doctoring.findings import Finding

_GB = 10**9


def check_cache_folder() -> Finding:
    """Where tokens and downloaded vectors are kept."""
    from sentiment.text.token_cache import default_cache_dir

    return check_folder(
        default_cache_dir(),
        enough_bytes=2 * _GB,
        purpose="the GloVe vectors, IMDB and its tokens take 1.2 GB",
        otherwise="choose another folder with --data.cache_dir, or with XDG_CACHE_HOME",
    )


def check_current_folder() -> Finding:
    """Where runs are kept, unless an output folder is given."""
    return check_folder(
        Path.cwd(),
        enough_bytes=_GB,
        purpose="a run takes 50 to 200 MB",
        otherwise="work in another folder, or choose one with --output_dir",
    )


def check_folder(folder: Path, *, enough_bytes: int, purpose: str, otherwise: str) -> Finding:
    """Try to write to a folder, which need not be there yet, and ask what room is left.

    Args:
        folder: where files are to lie.
        enough_bytes: free space that will do; a tenth of it is needed for anything at all.
        purpose: what takes the space.
        otherwise: what to do where it does not serve.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            file.write(b"x" * 65_536)
            file.flush()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Finding(f"{folder}: can't be written ({reason})", "mend", otherwise)
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / _GB:,.1f} GB free"
    if free < enough_bytes / 10:
        return Finding(found, "mend", f"{purpose}: make room, or {otherwise}")
    if free < enough_bytes:
        return Finding(found, "note", f"{purpose}: make room, or {otherwise}")
    return Finding(found)
