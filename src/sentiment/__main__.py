"""``python -m sentiment``: the same as the console command ``sentiment``."""

from __future__ import annotations

from sentiment.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
