"""The executor's own folder, from which jobs are started: nobody else may write there."""

import os
import stat
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

PRIVATE = 0o700
OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def claim(folder: Path) -> None:
    """Make the folder, for its owner alone; or take one that is there.

    What lies in it is run as this user, on the nodes too. Raises WorkflowError where it is another user's, or where the
    group or everybody may write to it. Results may be group-writable; this may not.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise WorkflowError(
            f"{folder}: expected the executor's folder to belong to this user ({os.geteuid()}), found user "
            f"{found.st_uid}: who owns it decides what the jobs run. Work in a folder of your own (--directory)."
        )
    if found.st_mode & OF_OTHERS:
        raise WorkflowError(
            f"{folder}: expected a folder that its owner alone may write to, found mode "
            f"{stat.S_IMODE(found.st_mode):04o}: others could change what the jobs run. If you trust what is in it, "
            f"run: chmod -R go-rwx '{folder}'. If not, delete it."
        )
