"""The loss kernels for x86-64-v3: AVX2 and fused multiply-add."""
include "losses.pxi"
include "layers.pxi"
include "products.pxi"
