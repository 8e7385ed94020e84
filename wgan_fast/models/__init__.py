"""Small generators and critics, for the trainer, the examples and the tests.

They import torch alone and know nothing of any loss. A critic returns one score per sample, shape
(B,), where it does not say otherwise, and none has BatchNorm unless it is asked for: a gradient
penalty is a statement about each sample's own gradient, which BatchNorm mixes with the others'.
"""

from wgan_fast.models.dcgan import IMAGE_SIZES, DCGANCritic, DCGANGenerator
from wgan_fast.models.groupsort import GroupSort
from wgan_fast.models.holes import InpaintingCritic, InpaintingGenerator, with_hole
from wgan_fast.models.labels import LabelledCritic, LabelledGenerator
from wgan_fast.models.mlp import MLPCritic, MLPGenerator
from wgan_fast.models.one_lipschitz import GroupSortConvCritic, GroupSortMLPCritic
from wgan_fast.models.orthogonal import OrthogonalConv2d, Orthonormal, orthogonal_linear
from wgan_fast.models.packs import PackedCritic
from wgan_fast.models.pairs import PairCritic, PairGenerator
from wgan_fast.models.patches import MultiScaleCritic, PatchCritic

__all__ = [
    "IMAGE_SIZES",
    "DCGANCritic",
    "DCGANGenerator",
    "GroupSort",
    "GroupSortConvCritic",
    "GroupSortMLPCritic",
    "InpaintingCritic",
    "InpaintingGenerator",
    "LabelledCritic",
    "LabelledGenerator",
    "MLPCritic",
    "MLPGenerator",
    "MultiScaleCritic",
    "OrthogonalConv2d",
    "Orthonormal",
    "PackedCritic",
    "PairCritic",
    "PairGenerator",
    "PatchCritic",
    "orthogonal_linear",
    "with_hole",
]
