"""The one kind of error that a user sees as a single line."""


class BadInputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was found, what was expected and what to do. The command line prints it as one line
    and exits with 2.
    """
