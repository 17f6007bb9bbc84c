"""Kernels for NVIDIA GPUs: the table of CUDA kernels, their source and their launches."""
