/* What a product of gemm.h fetches into the cache, while it computes, for what comes after it. */

#ifndef SKLLOSS_AHEAD_H
#define SKLLOSS_AHEAD_H

#include <stddef.h>

typedef struct {
    const void* alike[3];      /* arrays in the shape of the result, NULL from some on */
    const char* rows;          /* where rows of memory start, */
    const ptrdiff_t* order;    /* which of them, */
    ptrdiff_t left;            /* how many are still to be fetched, */
    ptrdiff_t step;            /* from one to the next in bytes, */
    ptrdiff_t size;            /* and bytes in each */
    ptrdiff_t done;            /* bytes of the first that have been fetched */
    ptrdiff_t lines;           /* lines to fetch beside a tile */
} sklloss_ahead;

#endif
