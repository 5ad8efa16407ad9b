"""A page to look through the images of an evaluation: parts, part maps, outcomes of attacks."""
