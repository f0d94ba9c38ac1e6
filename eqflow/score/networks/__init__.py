"""Networks for fields on a periodic grid: one that is local and equivariant, and the one of the paper."""

from eqflow.score.networks.local import Local, wrap
from eqflow.score.networks.unet import UNet

__all__ = ["Local", "UNet", "wrap"]
