"""The loss kernels for the baseline of the target: x86-64-v2 on x86-64, the compiler's own elsewhere."""
include "losses.pxi"
include "layers.pxi"
include "products.pxi"
