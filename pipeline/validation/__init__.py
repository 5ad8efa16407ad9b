"""Callbacks that measure and show while stages 1 and 3 train."""
