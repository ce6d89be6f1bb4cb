"""The loss kernels for x86-64-v3: AVX2 and fused multiply-add."""
include "_loops.pxi"
include "_network.pxi"
include "_tiles.pxi"
