"""The files that tell what was submitted, what happened to it and what it used: written early, whole or not at all."""
