"""Losses as plain torch modules."""
