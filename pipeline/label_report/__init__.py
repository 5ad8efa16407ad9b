"""Pseudo-label quality as HTML: `python -m pipeline label_report --labels RUN ...`."""
