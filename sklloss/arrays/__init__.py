"""Where arrays live and how work on them is shared out: NumPy's and the kernels, or another library's."""
