"""One thread for every test: small tensors gain nothing from more, and threads that wait for each other lose a lot."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
