"""Data sets before stage 1: checked, counted, converted."""
