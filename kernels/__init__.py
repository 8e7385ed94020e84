"""Triton kernels and their launchers, packaged as ``wgan_fast.kernels``; knows torch and triton."""
