"""Checks of correctness, against float64 or the CPU."""
