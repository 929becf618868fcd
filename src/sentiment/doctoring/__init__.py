"""Whether an installation is sound, and what to mend: ``sentiment doctor``."""
