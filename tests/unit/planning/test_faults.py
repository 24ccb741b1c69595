"""People's own inputs that once went wrong, made by a script beside the repository: right, or refused in a line."""

import runpy
import sys
from pathlib import Path

import pytest

from cem.cli import main

MAKE = Path(__file__).parents[4] / "shared/faults/make.py"
RIGHT = ("exif", "jfif", "kept_without_weight", "large_linear", "names_as_bytes", "nested")
REFUSED = {
    "cut_ppm": "x.ppm: expected an image, cannot read it",
    "damaged_npz": "d.npz: expected a whole npz file",
    "doubled_key": "study.yaml: given twice: noise_std (lines 12 and 25)",
    "few_of_a_class": "mine has 4 private images: no batch would be full",
    "flattened": "use x.reshape(-1, 28, 28)",
    "zero_to_one": "multiply them by 255",
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, with study.yaml."""
    if not MAKE.exists():
        # The script lies beside the repository, not in it: a clone alone cannot make the cases.
        pytest.skip(f"needs the script that makes the cases: {MAKE} is absent")
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(MAKE), str(folder)])
        runpy.run_path(str(MAKE), run_name="__main__")
    return folder


def test_every_case_is_among_them(faults: Path) -> None:
    assert {case.name for case in faults.iterdir()} == {*RIGHT, *REFUSED}


@pytest.mark.parametrize("case", [*RIGHT, *REFUSED])
def test_it_is_right_or_refused_before_any_job(
    faults: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(faults / case)
    code = 0
    try:
        main(["validate", "study.yaml"])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    if case in RIGHT:
        assert (code, err) == (0, "")
        assert out.splitlines()[-1].startswith("study ok: ")
    else:
        assert code == 2
        assert REFUSED[case] in err
        assert len(err.splitlines()) == 1
