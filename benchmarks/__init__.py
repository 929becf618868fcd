"""What ``make bench`` measures."""

import sys

# TensorBoard loads TensorFlow where it is installed, as it is beside Keras: it would compute on
# our cores and take our memory. None makes importing it fail; the one that needs it takes it out.
sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
