"""Jobs that were submitted before the executor had folders, and still wait, start all the same."""

import pickle
import subprocess
import sys

from snakemake_executor_plugin_submitit.node.command import Command


def test_a_command_that_was_pickled_under_its_old_name_is_loaded() -> None:
    command = Command("true", "folder", "events", 10)
    text = pickle.dumps(command, protocol=0)
    new, old = (f"snakemake_executor_plugin_submitit.{name}\n".encode() for name in ("node.command", "node"))
    assert new in text
    assert pickle.loads(text.replace(new, old)).__dict__ == command.__dict__


def test_the_inner_snakemake_is_found_under_its_old_name(tmp_path) -> None:
    (tmp_path / "Snakefile").write_text("rule all:\n    output: 'done'\n    shell: 'touch {output}'\n")
    words = ["-m", "snakemake_executor_plugin_submitit.inner", "-m", "snakemake", "--cores", "1", "--executor", "local"]
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "done").exists()
