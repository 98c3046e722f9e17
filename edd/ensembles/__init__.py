"""Ensembles (floor 4): `members` is the only place that adds the member axis, `lockstep` runs members side by side."""
