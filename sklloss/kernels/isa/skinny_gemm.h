/* Products of a block of rows with few outputs, and weighted Gram matrices of few columns.

   BLAS is written for large matrices; of these, a table times a handful of outputs, it makes half of what the
   machine can do. Here a tile of results stays in registers while the block streams past it once.

   Included by each build of the kernels, so that a vector is as wide as the instruction set has it. The
   vectors are those of the GNU dialect of C (gcc, clang); SKLLOSS_SKINNY_GEMM is 0 where there are none, and BLAS
   serves.

   Every sum runs in an order that depends on the shapes alone. */

#ifndef SKLLOSS_SKINNY_GEMM_H
#define SKLLOSS_SKINNY_GEMM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define SKLLOSS_SKINNY_GEMM 1
#else
#define SKLLOSS_SKINNY_GEMM 0
#endif

#if SKLLOSS_SKINNY_GEMM

#if defined(__AVX512F__)
#define SKLLOSS_VECTOR 64
#define SKLLOSS_REGISTERS 32
#elif defined(__AVX__)
#define SKLLOSS_VECTOR 32
#define SKLLOSS_REGISTERS 16
#else
#define SKLLOSS_VECTOR 16
#define SKLLOSS_REGISTERS 16
#endif

#define SKLLOSS_INLINE static inline __attribute__((always_inline))

/* Entries ahead of the current one whose row of the dense matrix is prefetched. */
#define SKLLOSS_PREFETCH_DISTANCE 8

SKLLOSS_INLINE ptrdiff_t sklloss_at(const void* index, ptrdiff_t i, const int long_index)
{
    return long_index ? (ptrdiff_t)((const int64_t*)index)[i] : (ptrdiff_t)((const int32_t*)index)[i];
}

#define real double
#define NAMED(name) sklloss_##name##_f64
#include "skinny_gemm_body.h"
#undef real
#undef NAMED

#define real float
#define NAMED(name) sklloss_##name##_f32
#include "skinny_gemm_body.h"
#undef real
#undef NAMED

#else

#define SKLLOSS_VECTOR 0
#define sklloss_scores_f64 NULL
#define sklloss_scores_f32 NULL
#define sklloss_scatter_f64 NULL
#define sklloss_scatter_f32 NULL
#define sklloss_sparse_scores_f64 NULL
#define sklloss_sparse_scores_f32 NULL
#define sklloss_sparse_scatter_f64 NULL
#define sklloss_sparse_scatter_f32 NULL
#define sklloss_gram_f64 NULL

#endif
#endif
