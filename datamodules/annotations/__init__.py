"""Part annotations on disk: PartImageNet++ and PartImageNet, their vocabulary and checks."""
