"""Kernels for GPUs, in Triton: imported only where Triton is installed and chosen as backend."""
