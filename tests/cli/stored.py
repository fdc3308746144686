"""What commands that read are shown: rows in a store of two Networks."""

from __future__ import annotations

import pyarrow as pa

from nektar.rows import Row
from nektar.store.port import Store
from nektar.store.schema import rows_to_arrow

CONTRACT = bytes([0x11]) * 20
YAML = f"""
data_dir: .
providers: {{p: {{url: "http://127.0.0.1:1"}}}}
listen: {{sql: "127.0.0.1:1"}}
networks:
  - {{name: one, chain_id: 1, rpc: [p], contracts: {{task_manager: "0x{CONTRACT.hex()}"}}}}
  - {{name: two, chain_id: 1, rpc: [p], contracts: {{task_manager/NAME: "0x{CONTRACT.hex()}"}}}}
"""


def put(store: Store, network: str, of: list[Row]) -> None:
    """As the sink does: `network` first, `version` and `is_deleted` last."""
    made = pa.Table.from_batches([rows_to_arrow(type(of[0]), [(row, False) for row in of])])
    deleted = pa.array([0] * len(of), pa.uint8())
    made = made.drop_columns(["is_deleted"]).add_column(0, "network", pa.array([network] * len(of)))
    made = made.append_column("version", pa.array([1 << 48] * len(of), pa.uint64()))
    store.insert(f"{of[0].table}_rows", made.append_column("is_deleted", deleted), f"{network} {of[0]}")
