"""What runs in Snakemake's own process: it takes jobs in, sends, adopts and follows them, and reports their end."""
