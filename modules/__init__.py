"""LightningModules, networks, losses and attacks."""
