"""Classifiers that are fitted to frozen features."""
