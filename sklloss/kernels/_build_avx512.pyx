"""The loss kernels for x86-64-v4: AVX-512."""
include "_loops.pxi"
include "_network.pxi"
include "_tiles.pxi"
