"""What the run folders of a runs folder hold, as typed values; nothing here draws."""
