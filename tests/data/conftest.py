import hashlib
import json

import pytest

from eqflow.data import Recipe


def _digests(folder):
    """SHA-256 of every file of a dataset; of the manifest without the environment."""
    result = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "claim.lock":
            content = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(content)
                manifest.pop("environment")
                content = json.dumps(manifest).encode()
            result[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return result


@pytest.fixture
def recipe():
    """Nine samples in three shards, three frames each."""
    return Recipe.from_preset("wave", samples=9, size=(24, 31), steps=40, every=20, shard_samples=4)


@pytest.fixture
def digests():
    """A function of the folder: {file: SHA-256}."""
    return _digests
