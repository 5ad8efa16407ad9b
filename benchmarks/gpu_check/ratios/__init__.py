"""Ratios and figures, measured side by side."""
