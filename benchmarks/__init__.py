"""The benchmarks of ``make bench``."""

from sentiment.environment import keep_tensorflow_out

keep_tensorflow_out()  # Keras needs it installed, but the others' time and memory are measured
