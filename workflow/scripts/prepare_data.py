"""Adapter of the rule prepare_data."""

import sys
from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from pydantic import TypeAdapter

        from cem.config import Dataset
        from cem.data.fingerprint import remember
        from cem.data.prepare import prepare_data

    settings, path = dict(snakemake.params.dataset), Path(snakemake.output[0])
    fingerprint = settings.pop("raw files", "")
    dataset = TypeAdapter(Dataset).validate_python(settings)
    source = prepare_data(dataset, path)
    remember(dataset, path, fingerprint, source.sha256)
    for note in [*source.notes, *source.remarks()]:
        print(note, file=sys.stderr)
