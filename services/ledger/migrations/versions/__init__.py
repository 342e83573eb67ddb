"""One module for each version of the schema, named `v<number>_<what it brings>`."""
