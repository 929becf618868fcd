"""What a file that may come from a stranger can cost: one rule for memory, one for being a file.

A packed file says nothing of what it unpacks to: 16 kB of Parquet or gzip can become gigabytes. So
whatever is unpacked is counted as it comes, and what files say of their own sizes is not believed.
"""

from __future__ import annotations

from pathlib import Path

# Text packs to a third or a fifth of its size, and to a twentieth where lines are much alike: a
# hundred times is no text any more. What unpacks to less than the floor hurts no machine that can
# train, however small its file.
MOST_TIMES_UNPACKED = 100
ALWAYS_UNPACKED = 256 * 2**20

# Characters of a line or a value: beyond it a file is none of lines, or a quote was never closed.
LONGEST_LINE = 64 * 2**20


class OutOfProportion(ValueError):
    """A file unpacks to more than the rule allows."""


class Unpacked:
    """Counts what comes out of a packed file, and refuses what is out of proportion to it.

    Args:
        path: the packed file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_bytes = 0
        self.most = max(ALWAYS_UNPACKED, MOST_TIMES_UNPACKED * path.stat().st_size)

    def add(self, num_bytes: int) -> None:
        """Count bytes that were unpacked, or are about to be.

        Raises:
            OutOfProportion: it is more than the rule allows.
        """
        self._num_bytes += num_bytes
        if self._num_bytes > self.most:
            raise OutOfProportion(
                f"{self._path} unpacks to more than {self.most // 2**20:,} MiB, which is over "
                f"{MOST_TIMES_UNPACKED} times its size: it was made to fill memory, or write it "
                "again unpacked if you trust it"
            )


def require_file(path: Path) -> None:
    """Refuse what only looks like a file by its name: reading a pipe or a device may never end.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is a folder, a pipe, a device or the like.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder, where a file was expected")
    if path.exists():
        raise ValueError(f"{path} is a pipe or a device: give a file")
    raise FileNotFoundError(f"there is no file {path}")


def shortened(text: str, most: int = 60) -> str:
    """What a message quotes of a file's text."""
    return text if len(text) <= most else text[: most - 1] + "…"
