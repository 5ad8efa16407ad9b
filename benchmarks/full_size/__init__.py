"""Do the full-size recipes run and go on, and what do 1,000 categories take, on one processor."""
