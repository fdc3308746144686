"""What contract events of the reference Network mean."""
