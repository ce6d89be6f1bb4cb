/* Products of matrices for the layers of a network.

   A batch makes matrices of middling size, of which BLAS spends a fifth of its time on bringing both sides into
   an order of its own. Here only the side that vectors run along is packed, into panels two vectors wide; the
   other is read number by number where it lies. Twelve (AVX-512) or six rows of two vectors are summed in registers.

   A number of the result is one sum in the order of k, fused multiply and add: it does not depend on how
   a product is split into tasks. Without fused multiply and add, or without the vectors of the GNU dialect,
   SKLLOSS_PANEL is 0, and BLAS serves. */

#ifndef SKLLOSS_GEMM_H
#define SKLLOSS_GEMM_H

#include "prefetch.h"
#include "skinny_gemm.h"

#if SKLLOSS_SKINNY_GEMM && defined(__FMA__)

#define SKLLOSS_PANEL (2 * SKLLOSS_VECTOR)                 /* bytes in a row of a panel */
#define SKLLOSS_TALL (SKLLOSS_REGISTERS == 32 ? 12 : 6)   /* rows of a tile */
#define SKLLOSS_DEEP 128                                   /* rows of a panel that stays in L1 */

/* Prefetch the next few cache lines of the rows of the next batch. */
SKLLOSS_INLINE void sklloss_prefetch_rows(sklloss_prefetch* prefetch)
{
    for (ptrdiff_t line = 0; line < prefetch->lines && prefetch->left > 0; line++) {
        __builtin_prefetch(prefetch->rows + *prefetch->order * prefetch->step + prefetch->done, 0, 2);
        prefetch->done += 64;
        if (prefetch->done >= prefetch->size) {
            prefetch->done = 0;
            prefetch->order++;
            prefetch->left--;
        }
    }
}

#define real double
#define NAMED(name) sklloss_##name##_f64
#include "gemm_body.h"
#undef real
#undef NAMED

#define real float
#define NAMED(name) sklloss_##name##_f32
#include "gemm_body.h"
#undef real
#undef NAMED

#else

#define SKLLOSS_PANEL 0
#define SKLLOSS_TALL 1
#define sklloss_product_f64 NULL
#define sklloss_product_f32 NULL
#define sklloss_pack_f64 NULL
#define sklloss_pack_f32 NULL
#define sklloss_outer_f64 NULL
#define sklloss_outer_f32 NULL

#endif
#endif
