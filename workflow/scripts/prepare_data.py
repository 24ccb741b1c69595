"""Adapter of the rule prepare_data."""

import sys
from pathlib import Path

from cem.jobs.script import job

with job(snakemake.log[0]):
    from pydantic import TypeAdapter

    from cem.config import Dataset
    from cem.data.fingerprint import remember
    from cem.data.prepare import prepare_data

    dataset, path = TypeAdapter(Dataset).validate_python(snakemake.params.dataset), Path(snakemake.output[0])
    source = prepare_data(dataset, path)
    remember(dataset, path, snakemake.params.fingerprint, source.sha256)
    for note in [*source.notes, *source.remarks()]:
        print(note, file=sys.stderr)
