"""Files that nobody would write, by the thousand: samples, mutations, what must hold of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what the tests share, outside of pytest
