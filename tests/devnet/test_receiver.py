"""The demo's receiver as a process: it says what came and what of it was verified, and fails as told."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import standardwebhooks

from devnet.anvil import free_port
from devnet.processes import Child, write_private

SECRET = "whsec_" + "QUJD" * 8
FORGED = "whsec_" + "REVG" * 8


def post(port: int, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/any/where", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def signed(name: str, body: bytes, secret: str = SECRET) -> dict[str, str]:
    now = datetime.now(UTC)
    signature = standardwebhooks.Webhook(secret).sign(name, now, body.decode())
    timestamp = str(int(now.timestamp()))
    return {"webhook-id": name, "webhook-timestamp": timestamp, "webhook-signature": signature}


def test_it_keeps_what_is_signed_refuses_what_is_forged_and_fails_by_order(tmp_path: Path) -> None:
    finding = {"id": "0x01", "condition": "equivocation", "operator": "0x02", "task_input": "15"}
    event = {"source": "/networks/n", "type": "nektar.finding.seen", "data": {**finding, "status": "seen"}}
    body = json.dumps(event).encode()
    port = free_port()
    secret = write_private(tmp_path / "secret", SECRET.encode())
    child = Child("receiver", "devnet.receiver", str(port), str(secret))
    try:
        child.wait_for("listening", port)
        assert post(port, body, signed("a", body)) == 204
        assert post(port, body, signed("b", body, FORGED)) == 401
        assert post(port, body + b" ", signed("c", body)) == 401
        assert post(port, b"{}", {}) == 401
        child.tell({"fail": ["503", "410"]})
        assert [post(port, body, signed("a", body)) for _ in range(3)] == [503, 410, 204]
        test = json.dumps({"type": "nektar.test", "data": {}}).encode()
        assert post(port, test, signed("t", test)) == 204
        report = child.tell({"report": 1})
    finally:
        child.stop()
    assert report["requests"] == 8
    came = [(each["id"], each["verified"]) for each in report["deliveries"]]
    assert came == [("a", True), ("b", False), ("c", False), ("", False), ("a", True), ("t", True)]
    first, forged = report["deliveries"][:2]
    assert first["finding"] == "0x01"
    assert first.items() >= {name: finding[name] for name in ("condition", "operator", "task_input")}.items()
    assert (first["source"], first["type"], first["status"]) == ("/networks/n", event["type"], "seen")
    assert forged["finding"] == ""
