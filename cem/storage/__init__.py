"""What lies on disk: HDF5, tensors, records; written whole or not at all, read without pickle."""

from cem.storage.files import StoreError
from cem.storage.hdf5 import open_activations, open_dataset

__all__ = ["StoreError", "open_activations", "open_dataset"]
