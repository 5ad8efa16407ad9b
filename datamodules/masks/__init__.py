"""Masks of parts in memory: polygons, run lengths, composites."""
