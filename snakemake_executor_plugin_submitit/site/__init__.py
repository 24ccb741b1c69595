"""Tools for the user of a cluster, called by a program of the workflow's own: install a profile, examine a site."""
