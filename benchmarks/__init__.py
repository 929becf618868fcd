"""The benchmarks of ``make bench``."""

import sys

# TensorBoard imports TensorFlow if it is installed (Keras needs it), which would use our cores and
# memory. None makes the import fail; the Keras benchmark removes this entry.
sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
