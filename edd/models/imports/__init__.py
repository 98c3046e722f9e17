"""Weights made elsewhere, read from safetensors files and from files of torch, strictly and without running what they hold."""
