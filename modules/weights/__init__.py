"""Networks on disk: started from, exported, opened again."""
