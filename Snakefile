"""A study from its YAML file to its report: `snakemake --cores all`, or `--profile profiles/local`.

Another study: `--configfile config/cifar10.yaml`. It replaces the default study; the two are never merged.
"""

from snakemake.utils import min_version

min_version("9.3")


if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


localrules:  # seconds of work, and a download that nodes may have no network for
    all,
    prepare_data,
    aggregate,
    report,


rule all:
    """Everything the study asks for."""
    input:
        lambda wildcards: everything(),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/mixture.smk"
include: "workflow/rules/attack.smk"
include: "workflow/rules/report.smk"


onsuccess:
    tell_where_the_report_is()


onerror:
    report_what_is_finished()
