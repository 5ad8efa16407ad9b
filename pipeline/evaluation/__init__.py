"""Outcomes of the evaluations: written, summarised, compared."""
