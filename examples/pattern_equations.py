"""The equation behind 96 still pictures of Gray-Scott waves: `python examples/pattern_equations.py`."""

from tempfile import TemporaryDirectory

from eqflow.data import Recipe, Snapshots, generate
from eqflow.fokker_planck import fields

with TemporaryDirectory() as folder:
    generate(Recipe.from_preset("wave", samples=96), folder)
    pictures = Snapshots(folder).load()  # [96, 2, 128, 128], without an order or time stamps
library = fields.polynomial("u v", 3) + fields.laplacian("u v")  # 12 candidates for each equation
found = fields.discover(pictures, fields.field_model(library), dt=1.0)
print(found.equations)
