"""What can go wrong, said in one line that names the value and the fix."""


class FactpatchError(Exception):
    """A failure to be shown to the user as one line; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(FactpatchError):
    """Bad input or usage: the message names the file, row or value, and what to change."""

    exit_code = 2


class UnavailableError(FactpatchError):
    """A store or server is out of reach: its address is wrong, or it is away and may come back."""

    exit_code = 2


class RefusedError(FactpatchError):
    """A check or a gate said no; nothing was promoted."""
