"""Which versions the peers have."""

from __future__ import annotations

CRYO = ("cryo==0.3.2",)
ETHEREUM_ETL = ("ethereum-etl==2.4.2",)
# What it asks for does not import on the Pythons of today.
ETHEREUM_ETL_NEWER = ("parsimonious==0.10.0", "regex==2026.11.19")
PONDER = ("ponder@0.16.6", "hono@4.13.19", "viem@2.57.20")
