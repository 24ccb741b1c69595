"""Old name of `node.inner`: jobs that a head from before the folders has submitted still start by it."""

from snakemake_executor_plugin_submitit.node.inner import main

if __name__ == "__main__":
    main()
