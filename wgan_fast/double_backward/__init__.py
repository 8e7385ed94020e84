"""Gradients of gradient penalties without double backward."""
