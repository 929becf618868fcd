"""What an unknown name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """A hint at what an unknown name was probably meant to be, or nothing."""
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if not near:  # A key given without its section: compare the last parts.
        last = {choice.rsplit(".", 1)[-1]: choice for choice in choices}
        near = [
            last[match]
            for match in difflib.get_close_matches(name.rsplit(".", 1)[-1], last, n=1, cutoff=0.6)
        ]
    return f" (did you mean {near[0]}?)" if near else ""
