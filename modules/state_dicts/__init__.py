"""State dicts in files: read safely, named, loaded strictly."""
