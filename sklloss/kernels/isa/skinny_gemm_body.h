/* The tiles for one type: see skinny_gemm.h, which defines `real` and `NAMED` and includes this once for each. */

#define LANES ((ptrdiff_t)(SKLLOSS_VECTOR / sizeof(real)))
#define vector NAMED(vector)
#define load NAMED(load)
#define store NAMED(store)
#define lane_sum NAMED(lane_sum)

typedef real vector __attribute__((vector_size(SKLLOSS_VECTOR)));

SKLLOSS_INLINE vector load(const real* from)
{
    vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

SKLLOSS_INLINE void store(real* to, vector v) { memcpy(to, &v, sizeof v); }

/* In halves, which stay in registers. */
SKLLOSS_INLINE real lane_sum(vector v)
{
    typedef real half __attribute__((vector_size(SKLLOSS_VECTOR / 2)));
    union { vector v; half h[2]; } whole = {v};
    union { half v; real x[SKLLOSS_VECTOR / 2 / sizeof(real)]; } sum = {whole.h[0] + whole.h[1]};
#if SKLLOSS_VECTOR > 16
    typedef real quarter __attribute__((vector_size(SKLLOSS_VECTOR / 4)));
    union { half v; quarter q[2]; } halves = {sum.v};
    union { quarter v; real x[SKLLOSS_VECTOR / 4 / sizeof(real)]; } rest = {halves.q[0] + halves.q[1]};
    real total = rest.x[0];
    for (ptrdiff_t i = 1; i < LANES / 4; i++)
        total += rest.x[i];
#else
    real total = sum.x[0];
    for (ptrdiff_t i = 1; i < LANES / 2; i++)
        total += sum.x[i];
#endif
    return total;
}

/* raw[r, k] = bias[k] + x[r] . w[k] for R rows and K outputs. The last columns, fewer than a vector holds,
   come as the last whole vector, of which `last` (K vectors of w) leaves out what has been counted. */
SKLLOSS_INLINE void NAMED(scores_tile)(
    const real* x, ptrdiff_t ldx, const real* w, ptrdiff_t p, const vector* last, const real* bias,
    real* raw, ptrdiff_t ldraw, const int R, const int K)
{
    vector sum[4][5];
    /* not to be kept in registers, which the loop needs */
    __asm__("" : "+r"(last), "+r"(bias));
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 6
        for (int k = 0; k < K; k++)
            sum[r][k] = (vector){0};
    for (ptrdiff_t j = 0; j + LANES <= p; j += LANES) {
        /* by name: gcc keeps an array of these in memory */
        vector w0 = load(w + j), w1 = w0, w2 = w0, w3 = w0, w4 = w0;
        if (K > 1) w1 = load(w + p + j);
        if (K > 2) w2 = load(w + 2 * p + j);
        if (K > 3) w3 = load(w + 3 * p + j);
        if (K > 4) w4 = load(w + 4 * p + j);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            vector row = load(x + r * ldx + j);
            sum[r][0] += row * w0;
            if (K > 1) sum[r][1] += row * w1;
            if (K > 2) sum[r][2] += row * w2;
            if (K > 3) sum[r][3] += row * w3;
            if (K > 4) sum[r][4] += row * w4;
        }
    }
    if (p % LANES) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            vector row = load(x + r * ldx + p - LANES);
#pragma GCC unroll 6
            for (int k = 0; k < K; k++)
                sum[r][k] += row * last[k];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 6
        for (int k = 0; k < K; k++)
            raw[r * ldraw + k] = bias[k] + lane_sum(sum[r][k]);
}

SKLLOSS_INLINE void NAMED(scores_outputs)(
    const real* x, ptrdiff_t ldx, const real* w, ptrdiff_t p, const real* bias,
    real* raw, ptrdiff_t ldraw, ptrdiff_t rows, const int K)
{
    vector last[6];
    ptrdiff_t i = 0;
    if (p % LANES)
        for (int k = 0; k < K; k++) {
            real lanes[SKLLOSS_VECTOR / sizeof(real)];
            for (ptrdiff_t j = 0; j < LANES; j++)
                lanes[j] = j < LANES - p % LANES ? 0 : w[k * p + p - LANES + j];
            last[k] = load(lanes);
        }
    for (; i + 4 <= rows; i += 4)
        NAMED(scores_tile)(x + i * ldx, ldx, w, p, last, bias, raw + i * ldraw, ldraw, 4, K);
    for (; i < rows; i++)
        NAMED(scores_tile)(x + i * ldx, ldx, w, p, last, bias, raw + i * ldraw, ldraw, 1, K);
}

/* raw = x w' + bias for rows of x (rows, p) by ldx, w (K, p), bias (K,) and raw (rows, K); p >= LANES. */
static void NAMED(scores)(
    const void* x_, ptrdiff_t ldx, const void* w_, ptrdiff_t p, const void* bias_, void* raw_, ptrdiff_t rows,
    ptrdiff_t K)
{
    const real* x = x_;
    const real* w = w_;
    const real* bias = bias_;
    real* raw = raw_;
    ptrdiff_t k = 0, left;
    const ptrdiff_t most = SKLLOSS_REGISTERS == 32 ? 5 : 2;
    while ((left = K - k) > 0) {
        /* even shares: 6 outputs are 3 and 3, not 5 and 1 */
        ptrdiff_t parts = (left + most - 1) / most, one = (left + parts - 1) / parts;
#define CASE(n) case n: NAMED(scores_outputs)(x, ldx, w + k * p, p, bias + k, raw + k, K, rows, n); break;
        switch (one) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5)
        }
#undef CASE
        k += one;
    }
}

/* total[k, j] += sum over rows of raw[i, k] x[i, j], for V vectors of columns and K outputs. */
SKLLOSS_INLINE void NAMED(scatter_tile)(
    const real* x, ptrdiff_t ldx, const real* raw, ptrdiff_t ldraw, ptrdiff_t rows, double* total,
    ptrdiff_t ldtotal, ptrdiff_t skip, const int prefetch, const int V, const int K)
{
    vector sum[4][5];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
#pragma GCC unroll 6
        for (int k = 0; k < K; k++)
            sum[v][k] = (vector){0};
    for (ptrdiff_t i = 0; i < rows; i++) {
        vector row[4];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            row[v] = load(x + i * ldx + v * LANES);
            /* the block that comes next, while this one is computed with */
            if (prefetch)
                __builtin_prefetch(x + (i + rows) * ldx + v * LANES, 0, 2);
        }
#pragma GCC unroll 6
        for (int k = 0; k < K; k++) {
            real factor = raw[i * ldraw + k];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                sum[v][k] += row[v] * factor;
        }
    }
    for (int k = 0; k < K; k++)
        for (int v = 0; v < V; v++) {
            real lanes[SKLLOSS_VECTOR / sizeof(real)];
            store(lanes, sum[v][k]);
            for (ptrdiff_t j = skip; j < LANES; j++)
                total[k * ldtotal + v * LANES + j] += (double)lanes[j];
        }
}

SKLLOSS_INLINE void NAMED(scatter_outputs)(
    const real* x, ptrdiff_t ldx, const real* raw, ptrdiff_t ldraw, ptrdiff_t rows, double* total, ptrdiff_t p,
    const int prefetch, const int K)
{
    ptrdiff_t j = 0;
    const int V = SKLLOSS_REGISTERS == 32 ? 4 : 2;
    for (; j + V * LANES <= p; j += V * LANES)
        NAMED(scatter_tile)(x + j, ldx, raw, ldraw, rows, total + j, p, 0, prefetch, V, K);
    for (; j + LANES <= p; j += LANES)
        NAMED(scatter_tile)(x + j, ldx, raw, ldraw, rows, total + j, p, 0, prefetch, 1, K);
    if (j < p)
        NAMED(scatter_tile)(x + p - LANES, ldx, raw, ldraw, rows, total + p - LANES, p, LANES - (p - j), 0, 1, K);
}

/* total += raw' x for a block: raw (rows, K), total (K, p) in double; p >= LANES. */
static void NAMED(scatter)(
    const void* x_, ptrdiff_t ldx, const void* raw_, double* total, ptrdiff_t rows, ptrdiff_t p, ptrdiff_t K)
{
    const real* x = x_;
    const real* raw = raw_;
    ptrdiff_t k = 0, left;
    const ptrdiff_t most = SKLLOSS_REGISTERS == 32 ? 5 : 4;
    /* the hardware knows for itself how to go on along short rows */
    const int far = K > 1 || ldx * (ptrdiff_t)sizeof(real) >= 1024;
    while ((left = K - k) > 0) {
        ptrdiff_t parts = (left + most - 1) / most, one = (left + parts - 1) / parts;
#define CASE(n) case n: NAMED(scatter_outputs)(x, ldx, raw + k, K, rows, total + k * p, p, PREFETCH, n); break;
        if (k == 0 && far) {
#define PREFETCH 1
            switch (one) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) }
#undef PREFETCH
        } else {
#define PREFETCH 0
            switch (one) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) }
#undef PREFETCH
        }
#undef CASE
        k += one;
    }
}

/* h[a, b] += sum over rows of u[i, a] z[i, b], for A rows and V vectors of columns of h. */
SKLLOSS_INLINE void NAMED(gram_tile)(
    const real* u, const real* z, ptrdiff_t ld, ptrdiff_t rows, real* h, ptrdiff_t ldh, const int A, const int V)
{
    vector sum[6][4];
#pragma GCC unroll 6
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            sum[a][v] = load(h + a * ldh + v * LANES);
    for (ptrdiff_t i = 0; i < rows; i++) {
        vector row[4];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            row[v] = load(z + i * ld + v * LANES);
#pragma GCC unroll 6
        for (int a = 0; a < A; a++) {
            real factor = u[i * ld + a];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                sum[a][v] += row[v] * factor;
        }
    }
#pragma GCC unroll 6
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            store(h + a * ldh + v * LANES, sum[a][v]);
}

/* h += u' z, the lower triangle at least, for u and z of (rows, ld), ld a multiple of LANES and of 2 and both
   padded with zeros; h is (ld, ld). */
static void NAMED(gram)(const void* u_, const void* z_, ptrdiff_t ld, ptrdiff_t rows, void* h_)
{
    const real* u = u_;
    const real* z = z_;
    real* h = h_;
    const int A = SKLLOSS_REGISTERS == 32 ? 6 : 4, V = SKLLOSS_REGISTERS == 32 ? 4 : 2;
    ptrdiff_t a = 0;
    while (a < ld) {
        ptrdiff_t tall = a + A <= ld ? A : 2;
        ptrdiff_t b = 0, columns = (a + tall + LANES - 1) / LANES * LANES;
        while (b < columns) {
            ptrdiff_t left = (columns - b) / LANES;
            real* to = h + a * ld + b;
            ptrdiff_t wide = left >= V ? V : left;
#define CASE(n, v) case v: NAMED(gram_tile)(u + a, z + b, ld, rows, to, ld, n, v); break;
            if (tall == A)
                switch (wide) { CASE(A, 1) CASE(A, 2) CASE(A, 3) CASE(A, 4) }
            else
                switch (wide) { CASE(2, 1) CASE(2, 2) CASE(2, 3) CASE(2, 4) }
#undef CASE
            b += wide * LANES;
        }
        a += tall;
    }
}

/* Sparse rows (CSR) times a matrix of few columns. Rows of the matrix are padded to whole lines of 64 bytes, of
   which there are G, so that one fetch is one line and no vector is cut. Indices are of 32 or 64 bits. */

#define PER_LINE (64 / SKLLOSS_VECTOR)
#define wide_vector NAMED(wide_vector)

typedef double wide_vector __attribute__((vector_size(SKLLOSS_VECTOR)));

SKLLOSS_INLINE void NAMED(sparse_scores_lines)(
    const real* value, const void* column, const void* indptr, const int long_index, const real* w,
    const real* bias, real* raw, ptrdiff_t rows, ptrdiff_t K, const int G)
{
    const ptrdiff_t step = G * (64 / (ptrdiff_t)sizeof(real)), end = sklloss_at(indptr, rows, long_index);
    real start[4 * 64 / sizeof(real)] = {0};
    memcpy(start, bias, K * sizeof(real));
    for (ptrdiff_t i = 0; i < rows; i++) {
        vector sum[4 * PER_LINE];
        real lanes[4 * 64 / sizeof(real)];
        const ptrdiff_t last = sklloss_at(indptr, i + 1, long_index);
#pragma GCC unroll 16
        for (int g = 0; g < G * PER_LINE; g++)
            sum[g] = load(start + g * LANES);
        for (ptrdiff_t j = sklloss_at(indptr, i, long_index); j < last; j++) {
            const real* row = w + sklloss_at(column, j, long_index) * step;
            const real x = value[j];
            if (j + SKLLOSS_PREFETCH_DISTANCE < end) {
                const real* wanted = w + sklloss_at(column, j + SKLLOSS_PREFETCH_DISTANCE, long_index) * step;
#pragma GCC unroll 4
                for (int g = 0; g < G; g++)
                    __builtin_prefetch((const char*)wanted + 64 * g, 0, 3);
            }
#pragma GCC unroll 16
            for (int g = 0; g < G * PER_LINE; g++)
                sum[g] += load(row + g * LANES) * x;
        }
#pragma GCC unroll 16
        for (int g = 0; g < G * PER_LINE; g++)
            store(lanes + g * LANES, sum[g]);
        memcpy(raw + i * K, lanes, K * sizeof(real));
    }
}

/* raw (rows, K) = X w + bias, for w (features, step) of whole lines; K from 1 to 32. */
static void NAMED(sparse_scores)(
    const void* value_, const void* column, const void* indptr, int long_index, const void* w_, const void* bias_,
    void* raw_, ptrdiff_t rows, ptrdiff_t K)
{
    const real* value = value_;
    const real* w = w_;
    const real* bias = bias_;
    real* raw = raw_;
    const ptrdiff_t lines = (K * (ptrdiff_t)sizeof(real) + 63) / 64;
#define CASE(n) \
    case n: \
        if (long_index) NAMED(sparse_scores_lines)(value, column, indptr, 1, w, bias, raw, rows, K, n); \
        else NAMED(sparse_scores_lines)(value, column, indptr, 0, w, bias, raw, rows, K, n); \
        break;
    switch (lines) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
}

SKLLOSS_INLINE void NAMED(sparse_scatter_lines)(
    const real* value, const void* column, const void* indptr, const int long_index, const real* raw,
    double* total, ptrdiff_t rows, ptrdiff_t K, const int G)
{
    const ptrdiff_t step = G * 8, end = sklloss_at(indptr, rows, long_index);
    const ptrdiff_t wide = SKLLOSS_VECTOR / 8;
    double row[4 * 8] = {0};
    for (ptrdiff_t i = 0; i < rows; i++) {
        wide_vector factor[4 * PER_LINE];
        const ptrdiff_t last = sklloss_at(indptr, i + 1, long_index);
        for (ptrdiff_t k = 0; k < K; k++)
            row[k] = raw[i * K + k];
#pragma GCC unroll 16
        for (int g = 0; g < G * PER_LINE; g++)
            memcpy(&factor[g], row + g * wide, sizeof(wide_vector));
        for (ptrdiff_t j = sklloss_at(indptr, i, long_index); j < last; j++) {
            double* to = total + sklloss_at(column, j, long_index) * step;
            const double x = value[j];
            if (j + SKLLOSS_PREFETCH_DISTANCE < end) {
                double* wanted = total + sklloss_at(column, j + SKLLOSS_PREFETCH_DISTANCE, long_index) * step;
#pragma GCC unroll 4
                for (int g = 0; g < G; g++)
                    __builtin_prefetch((char*)wanted + 64 * g, 1, 3);
            }
#pragma GCC unroll 16
            for (int g = 0; g < G * PER_LINE; g++) {
                wide_vector v;
                memcpy(&v, to + g * wide, sizeof v);
                v += factor[g] * x;
                memcpy(to + g * wide, &v, sizeof v);
            }
        }
    }
}

/* total (features, step) += X' raw in double, step numbers of K in whole lines; K from 1 to 32. */
static void NAMED(sparse_scatter)(
    const void* value_, const void* column, const void* indptr, int long_index, const void* raw_, double* total,
    ptrdiff_t rows, ptrdiff_t K)
{
    const real* value = value_;
    const real* raw = raw_;
#define CASE(n) \
    case n: \
        if (long_index) NAMED(sparse_scatter_lines)(value, column, indptr, 1, raw, total, rows, K, n); \
        else NAMED(sparse_scatter_lines)(value, column, indptr, 0, raw, total, rows, K, n); \
        break;
    switch ((K + 7) / 8) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
}

#undef PER_LINE
#undef wide_vector
#undef LANES
#undef vector
#undef load
#undef store
#undef lane_sum
