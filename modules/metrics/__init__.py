"""Average precision and what else is measured over all processes."""
