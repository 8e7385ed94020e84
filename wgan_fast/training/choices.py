"""What the settings of a run may be, where that is one of a few words, and the largest seed."""

from typing import Literal

Data = Literal["digits", "gaussians-8", "gaussians-25", "swiss-roll"]
Normalisation = Literal["none", "layer", "instance", "batch"]
Pairs = Literal["none", "joint", "separate"]
Scores = Literal["one", "patch", "multi-scale"]
Backend = Literal["auto", "explicit", "autograd", "first_order"]
Loop = Literal["auto", "captured", "compiled", "eager"]

# torch takes 64 bits; the random streams of a run stand above the seed.
LARGEST_SEED = 2**32 - 1

# Of digits.
CLASSES = 10

PICTURED_IMAGES, PICTURED_POINTS = 100, 1000
