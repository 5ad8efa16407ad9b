"""The small-scale study: the papers' models, trained and attacked over several seeds."""
