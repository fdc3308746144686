"""The command `nektar`: the only floor where the others meet."""
