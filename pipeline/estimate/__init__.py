"""What a training will cost, from a few of its real steps."""
