"""Where arrays live and how work on them is shared out: NumPy arrays and the compiled kernels so far."""
