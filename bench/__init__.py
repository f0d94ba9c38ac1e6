"""Throughput of every operator beside its peers. Nothing here is a test: see bench/results/README.md."""

import sys
from pathlib import Path

# Run from the checkout, `python -m bench...` finds its eqflow/ first, which has no compiled module: the installed one
# shall win.
_checkout = Path(__file__).resolve().parent.parent
sys.path.sort(key=lambda entry: Path(entry).resolve() == _checkout)
