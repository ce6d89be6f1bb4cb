/* The products for one type: see gemm.h, which defines `real` and `NAMED` and includes this once for each. */

#define LANES ((ptrdiff_t)(SKLLOSS_VECTOR / sizeof(real)))
#define WIDE (2 * LANES)
#define vector NAMED(vector)
#define load NAMED(load)
#define store NAMED(store)

/* c (M, width) = a b, or += if add, for M numbers of a in each of k steps and V vectors of b. */
SKLLOSS_INLINE void NAMED(product_tile)(
    const real* a, ptrdiff_t row, ptrdiff_t next, const real* b, ptrdiff_t k, real* c, ptrdiff_t ldc,
    ptrdiff_t width, const int add, const int M, const int V)
{
    vector sum[12][2];
    real lanes[2 * SKLLOSS_VECTOR / sizeof(real)] = {0};
    /* four addresses, from which an instruction reaches three rows each */
    const real *a0 = a, *a3 = a + 3 * row, *a6 = a + 6 * row, *a9 = a + 9 * row;
    const int whole = width == V * LANES;
    if (!add) {
#pragma GCC unroll 12
        for (int m = 0; m < M; m++)
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                sum[m][v] = (vector){0};
    } else if (whole) {
#pragma GCC unroll 12
        for (int m = 0; m < M; m++)
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                sum[m][v] = load(c + m * ldc + v * LANES);
    } else {
#pragma GCC unroll 12
        for (int m = 0; m < M; m++) {
            memcpy(lanes, c + m * ldc, width * sizeof(real));
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                sum[m][v] = load(lanes + v * LANES);
        }
    }
    for (ptrdiff_t j = 0; j < k; j++) {
        vector b0 = load(b), b1 = b0;
        if (V > 1)
            b1 = load(b + LANES);
        b += V * LANES;
#define ROW(m, at) \
    if (M > m) { \
        const real x = at; \
        sum[m][0] += b0 * x; \
        if (V > 1) \
            sum[m][1] += b1 * x; \
    }
        ROW(0, a0[0]) ROW(1, a0[row]) ROW(2, a0[2 * row])
        ROW(3, a3[0]) ROW(4, a3[row]) ROW(5, a3[2 * row])
        ROW(6, a6[0]) ROW(7, a6[row]) ROW(8, a6[2 * row])
        ROW(9, a9[0]) ROW(10, a9[row]) ROW(11, a9[2 * row])
#undef ROW
        a0 += next, a3 += next, a6 += next, a9 += next;
    }
    if (whole) {
#pragma GCC unroll 12
        for (int m = 0; m < M; m++)
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                store(c + m * ldc + v * LANES, sum[m][v]);
    } else {
#pragma GCC unroll 12
        for (int m = 0; m < M; m++) {
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                store(lanes + v * LANES, sum[m][v]);
            memcpy(c + m * ldc, lanes, width * sizeof(real));
        }
    }
}

SKLLOSS_INLINE void NAMED(product_strip)(
    const real* a, ptrdiff_t row, ptrdiff_t next, const real* b, ptrdiff_t k, real* c, ptrdiff_t ldc,
    ptrdiff_t rows, ptrdiff_t width, sklloss_prefetch* prefetch, ptrdiff_t column, const int add, const int V)
{
    ptrdiff_t i = 0;
    for (; i + SKLLOSS_TALL <= rows; i += SKLLOSS_TALL) {
        if (prefetch) {
            for (int q = 0; q < 3 && prefetch->same_shape[q]; q++)
                for (int m = 0; m < SKLLOSS_TALL; m++) {
                    const real* same_shape = (const real*)prefetch->same_shape[q] + (i + m) * ldc + column;
                    for (int line = 0; line < V * SKLLOSS_VECTOR; line += 64)
                        __builtin_prefetch((const char*)same_shape + line, 1, 2);
                }
            sklloss_prefetch_rows(prefetch);
        }
        NAMED(product_tile)(a + i * row, row, next, b, k, c + i * ldc, ldc, width, add, SKLLOSS_TALL, V);
    }
#define REST(M) \
    for (; i + M <= rows; i += M) \
        NAMED(product_tile)(a + i * row, row, next, b, k, c + i * ldc, ldc, width, add, M, V);
#if SKLLOSS_REGISTERS == 32
    REST(8)
#endif
    REST(4)
    REST(2)
    REST(1)
#undef REST
}

/* One panel of b: c (rows, width) = a b, or += if add. Of a, either the rows or the columns lie side by side. */
static void NAMED(product_panel)(
    const real* a, ptrdiff_t row, ptrdiff_t next, const real* b, ptrdiff_t k, real* c, ptrdiff_t ldc,
    ptrdiff_t rows, ptrdiff_t width, sklloss_prefetch* prefetch, ptrdiff_t column, int add)
{
#define CASES(row, next, prefetch) \
    if (width > LANES) { \
        if (add) \
            NAMED(product_strip)(a, row, next, b, k, c, ldc, rows, width, prefetch, column, 1, 2); \
        else \
            NAMED(product_strip)(a, row, next, b, k, c, ldc, rows, width, prefetch, column, 0, 2); \
    } else { \
        if (add) \
            NAMED(product_strip)(a, row, next, b, k, c, ldc, rows, width, prefetch, column, 1, 1); \
        else \
            NAMED(product_strip)(a, row, next, b, k, c, ldc, rows, width, prefetch, column, 0, 1); \
    }
    if (next == 1) {
        CASES(row, 1, NULL)
    } else {
        CASES(1, next, prefetch)
    }
#undef CASES
}

/* A panel of rows one or two vectors wide from b (k, width), the last filled up with zeros. */
static void NAMED(pack_panel)(const real* b, ptrdiff_t ldb, ptrdiff_t k, ptrdiff_t width, real* out)
{
    const ptrdiff_t wide = width > LANES ? WIDE : LANES;
    for (ptrdiff_t j = 0; j < k; j++, b += ldb, out += wide) {
        if (width == WIDE) {
            store(out, load(b));
            store(out + LANES, load(b + LANES));
        } else {
            memcpy(out, b, width * sizeof(real));
            memset(out + width, 0, (wide - width) * sizeof(real));
        }
    }
}

/* The same from the transpose, b (width, k). */
static void NAMED(pack_transposed)(const real* b, ptrdiff_t ldb, ptrdiff_t k, ptrdiff_t width, real* out)
{
    const ptrdiff_t wide = width > LANES ? WIDE : LANES;
    /* a line of b at a time */
    for (ptrdiff_t first = 0; first < k; first += 8) {
        const ptrdiff_t end = first + 8 < k ? first + 8 : k;
        for (ptrdiff_t i = 0; i < wide; i++)
            for (ptrdiff_t j = first; j < end; j++)
                out[j * wide + i] = i < width ? b[i * ldb + j] : 0;
    }
}

/* c (rows, n) = a b for rows of a (rows, k) and b (k, n), or b (n, k) if transposed. */
static void NAMED(product)(
    const void* a, ptrdiff_t lda, const void* b, ptrdiff_t ldb, int transposed, void* c, ptrdiff_t ldc,
    ptrdiff_t rows, ptrdiff_t n, ptrdiff_t k)
{
    real packed[SKLLOSS_DEEP * SKLLOSS_PANEL / sizeof(real)] __attribute__((aligned(64)));
    for (ptrdiff_t j = 0; j < n; j += WIDE) {
        const ptrdiff_t width = n - j < WIDE ? n - j : WIDE;
        for (ptrdiff_t first = 0; first < k; first += SKLLOSS_DEEP) {
            const ptrdiff_t deep = k - first < SKLLOSS_DEEP ? k - first : SKLLOSS_DEEP;
            if (transposed)
                NAMED(pack_transposed)((const real*)b + j * ldb + first, ldb, deep, width, packed);
            else
                NAMED(pack_panel)((const real*)b + first * ldb + j, ldb, deep, width, packed);
            NAMED(product_panel)(
                (const real*)a + first, lda, 1, packed, deep, (real*)c + j, ldc, rows, width, NULL, 0,
                first > 0);
        }
    }
}

/* b (k, n) in panels one after the other: k rows of as many numbers as n is short of a whole panel. */
static void NAMED(pack)(const void* b, ptrdiff_t ldb, ptrdiff_t k, ptrdiff_t n, void* out)
{
    for (ptrdiff_t j = 0; j < n; j += WIDE)
        NAMED(pack_panel)((const real*)b + j, ldb, k, n - j < WIDE ? n - j : WIDE, (real*)out + j * k);
}

/* c (m, n) = a' b, or += if add, for a (k, m) and b (k, n) packed. */
static void NAMED(outer)(
    const void* a, ptrdiff_t lda, const void* packed, void* c, ptrdiff_t ldc, ptrdiff_t m, ptrdiff_t n,
    ptrdiff_t k, int add, sklloss_prefetch* prefetch)
{
    for (ptrdiff_t j = 0; j < n; j += WIDE) {
        const ptrdiff_t width = n - j < WIDE ? n - j : WIDE;
        NAMED(product_panel)(
            a, 1, lda, (const real*)packed + j * k, k, (real*)c + j, ldc, m, width, prefetch, j, add);
    }
}

#undef LANES
#undef WIDE
#undef vector
#undef load
#undef store
