"""What the cluster tests are written with."""

from harness.cluster import CLUSTER_SH, ROOT, USER, Cluster, processes, wait_until
from harness.head import Head
from harness.shims import Shims
from harness.study import Study, is_amid_an_epoch
from harness.workflow import Workflow, models

__all__ = [
    "CLUSTER_SH",
    "ROOT",
    "USER",
    "Cluster",
    "Head",
    "Shims",
    "Study",
    "Workflow",
    "is_amid_an_epoch",
    "models",
    "processes",
    "wait_until",
]
