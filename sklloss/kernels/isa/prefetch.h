/* What a product of gemm.h prefetches for the step of the optimiser and the batch that follow it. */

#ifndef SKLLOSS_PREFETCH_H
#define SKLLOSS_PREFETCH_H

#include <stddef.h>

typedef struct {
    const void* same_shape[3]; /* arrays in the shape of the result; NULL ends the list */
    const char* rows;          /* base address of the rows to prefetch */
    const ptrdiff_t* order;    /* their numbers */
    ptrdiff_t left;            /* rows not yet prefetched */
    ptrdiff_t step;            /* bytes from one row to the next */
    ptrdiff_t size;            /* bytes in a row */
    ptrdiff_t done;            /* bytes of the current row already prefetched */
    ptrdiff_t lines;           /* cache lines to prefetch per tile */
} sklloss_prefetch;

#endif
