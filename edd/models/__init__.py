"""Backbones behind `Model(init, apply, templates)`; the only floor that imports flax."""
