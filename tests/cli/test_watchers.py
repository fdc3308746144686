"""`nektar watchers test` and `nektar check` on receivers that take, refuse and are not there."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import yaml

from cli import watchers
from cli.settings import read_config
from nektar.config import ConfigError
from tests.processors.told import OTHER_SECRET, SECRET, Serving

NETWORK = {"name": "n", "chain_id": 1, "rpc": ["p"], "contracts": {}}


def write(directory: Path, **told: dict[str, str]) -> Path:
    """A nektar.yaml whose watchers' secrets are in a file beside it, and elsewhere."""
    (directory / "secret").write_text(f"{SECRET}\n")
    named = [{"name": name, "secret": "file:secret", **given} for name, given in told.items()]
    config = {"providers": {"p": {"url": "http://127.0.0.1:1"}}, "networks": [NETWORK], "watchers": named}
    path = directory / "nektar.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def said(path: Path, name: str | None = None) -> tuple[str, str]:
    """What it prints, and the error it ends with."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            watchers.test(name, path, None)
        except watchers.NotTaken as error:
            return out.getvalue(), str(error)
    return out.getvalue(), ""


def test_a_test_event_is_signed_and_what_came_back_is_said(tmp_path: Path) -> None:
    with Serving() as serving:
        url = f"http://user:pass-word@127.0.0.1:{serving.port}/path-token"
        path = write(tmp_path, well={"url": url}, ill={"url": url, "secret": OTHER_SECRET})
        assert said(path, "well")[0].startswith("well: taken: it answers 204 (")
        assert [(d.type, d.verified) for d in serving.receiver.kept] == [("nektar.test", True)]
        text, error = said(path)
        assert "ill: NOT taken: it answers 401; check its url and its secret" in text
        assert error == "watchers test: ill did not take it; findings would wait"
    text, error = said(path, "well")
    assert "can't connect (Connection refused)" in text
    assert "token" not in text + error
    assert "pass-word" not in text + error
    with pytest.raises(ConfigError, match=r"expected a watcher that .* names \(well, ill\); got x"):
        watchers.test("x", path, None)


def test_a_secret_in_a_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    path = write(tmp_path, well={"url": "http://127.0.0.1:1"})
    assert read_config(path, None)[0].watchers[0].secret == SECRET


def test_a_configuration_without_watchers_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has no `watchers`"):
        watchers.test(None, write(tmp_path), None)
