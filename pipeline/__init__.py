"""Entry points, stage outputs and the report."""
