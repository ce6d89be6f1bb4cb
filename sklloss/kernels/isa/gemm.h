/* Products of matrices for the layers of a network.

   A batch makes matrices of middling size, of which BLAS spends a fifth of its time on bringing both sides into
   an order of its own. Here only the side that vectors run along is packed, into panels two vectors wide; the
   other is read number by number where it lies. Twelve (AVX-512) or six rows of two vectors are summed in registers.

   A number of the result is one sum in the order of k, fused multiply and add: it does not depend on how
   a product is cut into pieces. Without fused multiply and add, or without the vectors of the GNU dialect,
   SKLLOSS_PANEL is 0, and BLAS serves. */

#ifndef SKLLOSS_MATRIX_H
#define SKLLOSS_MATRIX_H

#include "prefetch.h"
#include "skinny_gemm.h"

#if SKLLOSS_TILES && defined(__FMA__)

#define SKLLOSS_PANEL (2 * SKLLOSS_VECTOR)                 /* bytes in a row of a panel */
#define SKLLOSS_TALL (SKLLOSS_REGISTERS == 32 ? 12 : 6)   /* rows of a tile */
#define SKLLOSS_DEEP 128                                   /* rows of a panel that stays in L1 */

/* A few lines of the rows that are wanted next. */
SKLLOSS_INLINE void sklloss_fetch_rows(sklloss_ahead* ahead)
{
    for (ptrdiff_t line = 0; line < ahead->lines && ahead->left > 0; line++) {
        __builtin_prefetch(ahead->rows + *ahead->order * ahead->step + ahead->done, 0, 2);
        ahead->done += 64;
        if (ahead->done >= ahead->size) {
            ahead->done = 0;
            ahead->order++;
            ahead->left--;
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
