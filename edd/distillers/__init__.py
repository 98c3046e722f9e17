"""Distillation methods behind one interface: each file's `make(num_members, num_classes, ...)` returns a `Distiller`."""
