"""Progress bars."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm


def progress_bar(*, is_hidden: bool = False, **options: Any) -> tqdm:
    """A bar on a terminal or in a notebook, none in a file; ``options`` are tqdm's."""
    # None hides it unless standard error is a terminal, which a notebook's is not.
    is_shown = None if "ipykernel" not in sys.modules else False
    return tqdm(disable=True if is_hidden else is_shown, **options)
