"""Rendered objects of named parts, in the layout of PartImageNet++."""
