"""The loss kernels for x86-64-v4: AVX-512."""
include "losses.pxi"
include "layers.pxi"
include "products.pxi"
