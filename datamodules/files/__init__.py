"""Files and the errors about them: the ground of all packages."""
