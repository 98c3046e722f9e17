"""Weights made elsewhere, read from safetensors files."""
