"""Data: sources by name as numpy arrays in memory, exactly resumable batches, keyed augmentations and corruptions."""
