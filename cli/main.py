"""The command `nektar`."""


def main() -> None:
    """Entry point."""
