"""Snapshots and trajectories on disk, in The Well's HDF5 layout: made, resumed, inspected and read."""

from eqflow.data.folder import DatasetError
from eqflow.data.generate import Progress, Summary, generate
from eqflow.data.inspect import Report, inspect
from eqflow.data.recipe import Recipe
from eqflow.data.snapshots import Snapshots

__all__ = ["DatasetError", "Progress", "Recipe", "Report", "Snapshots", "Summary", "generate", "inspect"]
