"""Boxes and annotated images for the detectors."""
