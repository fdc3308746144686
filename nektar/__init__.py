"""The shared language of Nektar Watchtower: the lowest floor, which imports none of the others."""
