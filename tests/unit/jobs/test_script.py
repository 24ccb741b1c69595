import gc

import pytest

from cem.jobs.script import imports


def test_what_was_imported_is_left_alone_and_what_comes_after_is_collected() -> None:
    before = gc.get_freeze_count()
    with imports():
        assert not gc.isenabled()
        made = [[number] for number in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_an_import_that_fails_does_not_leave_the_collector_off() -> None:
    with pytest.raises(ImportError), imports():
        raise ImportError
    assert gc.isenabled()
