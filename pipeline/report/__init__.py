"""The HTML report of a runs folder: `python -m pipeline report --runs RUNS`."""
