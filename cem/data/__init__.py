"""Data: sources of images, their splits, the prepared file, and the loader that keeps a split on the device."""
