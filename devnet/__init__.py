"""A Network at home: contracts, operators, an aggregator and a scenario with faults whose truth is known."""
