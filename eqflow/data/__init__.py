"""Snapshots, trajectories and points on disk: made, resumed, inspected and read; fields in The Well's HDF5 layout."""

from eqflow.data.creatures import Creature, icons, read_creature
from eqflow.data.files import DatasetError
from eqflow.data.generate import Progress, Summary, generate
from eqflow.data.inspect import Report, inspect
from eqflow.data.pictures import PicturesError, Stills, read_pictures
from eqflow.data.points import Cloud, PointsError, check_points, read_points
from eqflow.data.recipe import Recipe
from eqflow.data.snapshots import Snapshots
from eqflow.data.tensors import read_tensors, save_tensors

__all__ = [
    "Cloud",
    "Creature",
    "DatasetError",
    "PicturesError",
    "PointsError",
    "Progress",
    "Recipe",
    "Report",
    "Snapshots",
    "Stills",
    "Summary",
    "check_points",
    "generate",
    "icons",
    "inspect",
    "read_creature",
    "read_pictures",
    "read_points",
    "read_tensors",
    "save_tensors",
]
