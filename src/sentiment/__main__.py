"""``python -m sentiment``: the same as the console command ``sentiment``."""

from sentiment.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
