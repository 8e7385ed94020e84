"""The operators, ``torch.ops.wgan_fast.*``: one schema each, and an implementation per device.

==========================  ==============  ==============  ============================
operator                    CPU             GPU             anywhere else, or not built
==========================  ==============  ==============  ============================
``interpolate``             C++             Triton          plain PyTorch
``merged_batch``            C++             Triton          plain PyTorch
``gradient_norm_penalty``   C++             Triton          plain PyTorch
``clip_weights_``           C++             CUDA C++        plain PyTorch
``rmsprop_``                C++             CUDA C++        plain PyTorch
``normalisation_*``         C++             Triton          plain PyTorch
``winograd_*``              C++             plain PyTorch   plain PyTorch
``product``                 C++             plain PyTorch   plain PyTorch
==========================  ==============  ==============  ============================

The dispatcher chooses: an operator is called by its name, and PyTorch picks the implementation that
is registered for the tensors' device. :func:`status` says which that is.
"""

from wgan_fast.ops import normalisation, product, winograd
from wgan_fast.ops.clip_weights import clip_weights_
from wgan_fast.ops.gradient_norm_penalty import gradient_norm_penalty
from wgan_fast.ops.interpolate import interpolate
from wgan_fast.ops.merged_batch import merged_batch
from wgan_fast.ops.registration import accumulation_dtype, status
from wgan_fast.ops.rmsprop import rmsprop_

__all__ = [
    "accumulation_dtype",
    "clip_weights_",
    "gradient_norm_penalty",
    "interpolate",
    "merged_batch",
    "normalisation",
    "product",
    "rmsprop_",
    "status",
    "winograd",
]
