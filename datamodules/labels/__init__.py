"""Part labels for training: Parquet, the memory-mapped composites, other formats."""
