"""The error that a user can correct."""


class UserError(ValueError):
    """A wrong setting, file or argument; commands show its message as one line, no traceback.

    The message says what was found, where, and what to do. Any other exception is a bug and keeps
    its traceback.
    """
