"""The parts of `benchmarks/gpu.py`: correctness, measuring, kernels, layers."""
