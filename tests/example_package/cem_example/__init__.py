"""One member of one's own for each family: what docs/extending.md explains."""
