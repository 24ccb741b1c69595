"""`python -m cem.cli`: where the path of an environment holds what a command's first line cannot."""

from cem.cli import main

main()
