"""Any segmenter's results against human annotations."""
