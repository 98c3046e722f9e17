"""Layers shared by the backbones: dropout by per-example keys, batch normalisation, the wrapper from Linen to `Model`."""
