"""What comes in: proves a chain block by block and writes it onto the Network's log."""
