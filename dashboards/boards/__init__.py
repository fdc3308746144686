"""The boards, one a file."""

from __future__ import annotations

from dashboards.boards.network import NETWORK
from dashboards.panels import Board

BOARDS: tuple[Board, ...] = (NETWORK,)
