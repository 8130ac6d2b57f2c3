"""The trunk, computed once: activations below the location are frozen, so they are kept and only the head side runs."""

from factpatch.frozen_trunk.opening import Rows, open_rows

__all__ = ["Rows", "open_rows"]
