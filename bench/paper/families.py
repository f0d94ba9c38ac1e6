"""The kinds of learned flow that are compared, by name: loss, network, and whether a symmetry is built in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eqflow.dynamics import FlowSettings

_BEST = FlowSettings()
_CONVERGED = replace(_BEST, steps=2500, rate=3e-3)  # five octaves and one need longer
_PAPER = FlowSettings.paper()
_ONE = replace(_BEST, norm="per-coordinate")


@dataclass(frozen=True)
class Family:
    """One kind of learned flow.

    Args:
        title: for tables.
        settings: of the training.
        parity: "even" or "odd" under the flip of signs that the points show, None for no symmetry.
        points: of the cloud.
        seen: fidelity to Lorenz, similarity of the models, and residual, as a study with few models had them.
    """

    title: str
    settings: FlowSettings
    parity: str | None = None
    points: int = 100_000
    seen: tuple[str, str, str] = ("", "", "")


FAMILIES = {
    "best": Family("equivariant, expected Gaussian k=8, scalar, 2 octaves", _BEST, "even",
                   seen=("0.995", "1.000", "0.10")),
    "best-10k": Family("the same from 10,000 points, 1000 steps", replace(_BEST, steps=1000), "even", 10_000,
                       ("0.988", "0.9995", "0.07-0.10")),
    "best-1k": Family("the same from 1,000 points, 1000 steps", replace(_BEST, steps=1000), "even", 1_000,
                      ("0.939", "", "0.27")),
    "odd": Family("anti-equivariant control", _BEST, "odd", seen=("0.030", "", "0.093")),
    "plain": Family("expected Gaussian k=8, scalar, 2 octaves, no symmetry", _BEST),
    "paper": Family("as described: sampled Gaussian k=1, per coordinate, 5 octaves", _PAPER,
                    seen=("0.33 ± 0.11", "0.86 ± 0.13", "1.25-1.41")),
    "five-octaves": Family("expected Gaussian k=8, scalar, 5 octaves", replace(_CONVERGED, frequencies=5),
                           seen=("0.58 ± 0.07", "0.991", "0.09")),
    "one-octave": Family("expected Gaussian k=8, scalar, 1 octave", replace(_CONVERGED, frequencies=1),
                         seen=("0.65 ± 0.05", "0.995", "0.11")),
    "gaussian-8": Family("expected Gaussian k=8, per coordinate, 2 octaves", _ONE, seen=("0.007", "1.000", "0.43")),
    "gaussian-1": Family("expected Gaussian k=1, per coordinate, 2 octaves", replace(_ONE, probes=1),
                         seen=("0.017 ± 0.005", "0.999", "1.03")),
    "gaussian-1-scalar": Family("expected Gaussian k=1, scalar, 2 octaves", replace(_BEST, probes=1),
                                seen=("0.21 ± 0.11", "0.903", "0.47")),
    "exact": Family("exact, per coordinate, 2 octaves", replace(_ONE, objective="exact"),
                    seen=("0.12 ± 0.09", "0.958", "0.016-0.031")),
    "rademacher-sampled": Family("sampled Rademacher k=1, per coordinate, 5 octaves", replace(_PAPER, law="rademacher"),
                                 seen=("0.72 ± 0.06", "0.979", "0.79-1.0")),
    "rademacher-1": Family("expected Rademacher k=1, per coordinate, 2 octaves",
                           replace(_ONE, probes=1, law="rademacher"), seen=("0.927 ± 0.005", "0.980", "0.54-0.57")),
    "rademacher-1-scalar": Family("expected Rademacher k=1, scalar, 2 octaves",
                                  replace(_BEST, probes=1, law="rademacher"),
                                  seen=("0.956 ± 0.031", "0.915", "0.18-0.22")),
}  # fmt: skip

RELEASED = Family("as released: sampled Gaussian k=10, per coordinate, 4 octaves", FlowSettings.released())
VORTICES = Family(
    "expected Gaussian k=1, scalar, 2 octaves", replace(_BEST, probes=1, steps=1200, rate=3e-3)
)  # for planar sets
