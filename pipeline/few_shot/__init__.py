"""Few-shot classification on frozen features."""
