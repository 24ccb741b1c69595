"""Adapter of the rule prepare_data."""

import sys

from cem.jobs.script import job

with job(snakemake.log[0]):
    from pydantic import TypeAdapter

    from cem.config import Dataset
    from cem.data.prepare import prepare_data

    source = prepare_data(TypeAdapter(Dataset).validate_python(snakemake.params.dataset), snakemake.output[0])
    for note in [*source.notes, *source.remarks()]:
        print(note, file=sys.stderr)
