"""Scores in files, and those that ship."""

import json
from pathlib import Path

import pytest
import torch

from eqflow.data.tensors import save_tensors
from eqflow.metrics import Wiener, asymmetry, denoising_error, stein_identity
from eqflow.score import PatternDenoiser, PatternShape, about_score, pretrained, read_score, stored

FOLDER = Path(stored.__file__).parent / "pretrained"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.json"))
CREATURES = ("firefly", "two-dots")


def written(path, **changes):
    denoiser = PatternDenoiser(PatternShape(width=4, dilations=(1,)), [0.1, 0.2], [0.5, 0.4], seed=3)
    note = {"name": "x", "channels": ["u", "v"], "offset": [0.5, 1.0], "factor": [0.5, 2.0], "size": (8, 12)}
    tensors, about = about_score(denoiser, system=None, apart=torch.randn(3, 2, 8, 12), **note)
    save_tensors(path, tensors, {**about, **changes})
    return denoiser, tensors


def test_what_is_written_is_read(tmp_path):
    denoiser, tensors = written(tmp_path / "a.safetensors")
    found = read_score(tmp_path / "a.safetensors")
    field = torch.randn(2, 2, 8, 12)
    assert torch.equal(found.denoiser(field), denoiser(field))
    assert found.channels == ("u", "v") and found.size == (8, 12) and found.system is None
    assert torch.equal(found.fields(range(2, 5)), tensors["starts"][[2, 0, 1]])
    assert found.factor.shape == (2, 1, 1)
    with pytest.raises(ValueError, match="no system is known"):
        found.fields(range(1), size=(16, 16))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        read_score(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is damaged"):
        read_score(path)
    written(path, format=2)
    with pytest.raises(ValueError, match=r"expected a score of format 1 in .*, got 2: another version"):
        read_score(path)
    with pytest.raises(ValueError, match=r"expected a pretrained score .*wave.*, got 'moon'"):
        pretrained("moon")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_score_is_what_its_report_says(name):
    """Bounds that a wrong score cannot meet: an error far below the best linear filter's, and Stein's identity."""
    report = json.loads((FOLDER / f"{name}.json").read_text())
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 2e6
    shipped = pretrained(name)
    made_by = f"eqflow design {name}" if name in CREATURES else f"eqflow train --system gray-scott:{name} "
    assert report["made"]["command"].startswith(made_by) and (shipped.pictures is not None) == (name in CREATURES)
    fields = shipped.fields(range(12), seed=5)
    score = shipped.denoiser.at()
    found = denoising_error(shipped.denoiser, fields, score.sigma)
    said = torch.tensor(report["denoising"]["error"], dtype=torch.float64)
    assert ((found.error - said).abs() < 4 * found.standard_error + 0.05 * said).all()
    wiener = Wiener.fit(fields, score.sigma).error  # of these fields themselves, and so below that of others
    assert (found.error < wiener).all() and (said < 0.65 * torch.tensor(report["denoising"]["wiener"])).all()
    stein = stein_identity(score, score.noised(fields, seed=1))
    assert float(stein.product) == pytest.approx(-1, abs=0.02)


def test_a_trained_score_is_no_gradient():
    wave = pretrained("wave")
    noised = wave.denoiser.at().noised(wave.fields(range(2)), seed=0)
    assert 0.2 < asymmetry(wave.denoiser, noised, probes=2).asymmetry < 0.7
