import subprocess
import sys

import pytest

from cem.config import MlxtendDataset, Split, SyntheticDataset
from cem.data.check import check_files
from cem.data.sources import DataError


def test_checking_imports_no_torch() -> None:
    code = (
        "import sys; from cem.config import MlxtendDataset; from cem.data.check import check_files; "
        "check_files(MlxtendDataset()); sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_splits_that_cannot_be_had_are_refused_without_making_an_image() -> None:
    check_files(MlxtendDataset())
    check_files(SyntheticDataset(images=1_000_000))
    with pytest.raises(DataError, match="mnist5k: split 'val' needs 4001 images, but only 4000"):
        check_files(MlxtendDataset(split=Split(val=4001)))
    with pytest.raises(DataError, match="synthetic: split 'test' has 6 images for 10 classes"):
        check_files(SyntheticDataset(images=30))
