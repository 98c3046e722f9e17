"""The training engine (floor 5b): one program for ensembles and students over a ("member", "data") mesh.

- `step`: one optimiser step of all replicas, with diverged ones frozen; `mesh`, `state`, `optimizers`: what it needs.
- `loop`: many of them, with checkpoints (`checkpoint`), curves (`writers`) and evaluation (`evaluation`).
"""
