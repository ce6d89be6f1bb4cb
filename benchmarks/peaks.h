/* What machine.py times: multiply-adds in registers, and reads. NUMBER and BYTES (of a vector) are defined by
   the command line; a build without fused multiply-add gets a multiplication and an addition instead. */

typedef NUMBER vector __attribute__((vector_size(BYTES)));

/* Independent chains: enough to hide the latency of two units, and few enough for 16 registers. */
#define CHAINS 12

/* 2 * CHAINS * BYTES / sizeof(NUMBER) operations a step. */
NUMBER multiply_add(long steps)
{
    vector sum[CHAINS], x, y;
    for (int i = 0; i < (int)(BYTES / sizeof(NUMBER)); i++) {
        x[i] = (NUMBER)0.5;
        y[i] = (NUMBER)steps;
    }
    for (int k = 0; k < CHAINS; k++)
        sum[k] = y + (NUMBER)k;
    for (long s = 0; s < steps; s++) {
#pragma GCC unroll 12
        for (int k = 0; k < CHAINS; k++)
            sum[k] = sum[k] * x + y;
    }
    for (int k = 1; k < CHAINS; k++)
        sum[0] += sum[k];
    return sum[0][0];
}

/* Reads n numbers, a multiple of 8 vectors, this many times. */
NUMBER read_numbers(const NUMBER *from, long n, long times)
{
    const long width = BYTES / sizeof(NUMBER);
    vector sum[8] = {{0}};
    for (long t = 0; t < times; t++)
        for (long i = 0; i < n; i += 8 * width) {
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++)
                sum[k] += *(const vector *)(from + i + k * width);
        }
    for (int k = 1; k < 8; k++)
        sum[0] += sum[k];
    return sum[0][0];
}
