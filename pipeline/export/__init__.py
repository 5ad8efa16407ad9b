"""Trained networks leave and enter the project."""
