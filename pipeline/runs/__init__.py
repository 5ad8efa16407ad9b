"""Run folders of all stages."""
