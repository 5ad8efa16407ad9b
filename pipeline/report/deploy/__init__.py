"""The page that answers which of the evaluated models to deploy."""
