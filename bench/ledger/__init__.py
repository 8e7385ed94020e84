"""What compilers make of the GPU kernels, on a machine without a GPU: see ``bench.gpu_ledger``."""
