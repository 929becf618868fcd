"""A run's model in one file for programs that do not have this package."""
