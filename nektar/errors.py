"""What went wrong in a way that a person can mend."""

from __future__ import annotations

from typing import ClassVar


class NektarError(Exception):
    """Base of every error whose message is one line for a person: what, where, what to do.

    The command prints the message and exits non-zero; a role that meets one stops with it. Anything else
    that escapes is a bug and keeps its traceback.
    """

    exit_code: ClassVar[int] = 1
    """2 where the command or the configuration is wrong: starting again can't help."""
