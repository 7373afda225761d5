"""The error that a user can mend: `main` prints it as one line and exits with code 2."""


class UserError(Exception):
    """Names the value, the limit it breaks and the mend, in one line."""
