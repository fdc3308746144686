from __future__ import annotations

import pytest

from nektar import plugins
from nektar.networks.nektar import NektarNetwork
from processors.conditions.equivocation import Equivocation


def test_the_entry_points_of_the_project_resolve() -> None:
    assert "nektar" in plugins.names("nektar.networks")
    assert plugins.load("nektar.networks", "nektar") is NektarNetwork
    assert "equivocation" in plugins.names("nektar.conditions")
    assert plugins.load("nektar.conditions", "equivocation") is Equivocation


@pytest.mark.parametrize("group", ["nektar.networks", "nektar.conditions"])
def test_what_is_loaded_calls_itself_by_the_name_that_it_is_loaded_by(group: str) -> None:
    for name in plugins.names(group):
        assert plugins.load(group, name)().name == name


def test_an_unknown_name_is_one_line_that_says_which_there_are() -> None:
    with pytest.raises(plugins.UnknownPlugin, match=r"expected one of .*nektar.*; got 'nectar'") as refused:
        plugins.load("nektar.networks", "nectar")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2
    with pytest.raises(plugins.UnknownPlugin, match="none installed"):
        plugins.load("nektar.nothing", "x")
