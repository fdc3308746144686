"""What several commands need: the configuration, and adapters, conditions and folds by their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nektar import config as configuration
from nektar import plugins
from nektar.config import Config

if TYPE_CHECKING:
    from nektar.fold import Fold
    from nektar.networks.adapter import Adapter
    from processors.conditions.condition import Condition


def read_config(path: Path | None, directory: Path | None) -> tuple[Config, Path]:
    """The configuration and where it was found. Raises ConfigError."""
    found = configuration.find(path, directory)
    return configuration.load(found), found


def data_config(path: Path | None, directory: Path | None, *, new: bool = False) -> Config:
    """The configuration; where none is named or found, one that names nothing but a data directory: that of
    `--dir`, or `./nektar-data`, which must be there unless it may be `new`. Raises ConfigError."""
    found = configuration.find(path, directory)
    data = directory or Path("nektar-data")
    if path is None and not found.exists() and (new or data.is_dir()):
        return Config(providers={}, networks=(), data_dir=str(data.absolute()))
    return configuration.load(found)


def adapters(config: Config) -> dict[str, Adapter]:
    """Network name → its adapter. Raises UnknownPlugin."""
    return {n.name: plugins.load("nektar.networks", n.adapter)() for n in config.networks}


def conditions() -> dict[str, Condition]:
    """Every condition that this installation has, by its name."""
    return {name: plugins.load("nektar.conditions", name)() for name in plugins.names("nektar.conditions")}


def folds() -> list[Fold[Any]]:
    """Every fold that this installation has: the ledgers, and what each condition detects with."""
    from processors.folds.diagnosis import Diagnosis
    from processors.folds.operators import Operators
    from processors.folds.service_levels import ServiceLevels
    from processors.folds.slashings import Slashings
    from processors.folds.tasks import Tasks
    from processors.folds.traces import Traces

    ledgers: list[Fold[Any]] = [Tasks(), Diagnosis(), Operators(), Slashings(), ServiceLevels(), Traces()]
    return [*ledgers, *(each.detect for each in conditions().values())]
