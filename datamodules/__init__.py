"""Data sets, label formats and LightningDataModules."""
