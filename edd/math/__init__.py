"""Stable special functions, reductions, pytree helpers and argument checks (floor 0)."""
