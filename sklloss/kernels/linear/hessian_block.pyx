"""The Hessian of a linear model over some of its parameters: rows and columns of the whole, built alone.

Each output has its own chosen columns, ascending, and those of all outputs follow each other: parameter m
of output k, ``starts[k] <= m < starts[k + 1]``, belongs to column ``columns[m]``, where the number after
the last feature is the intercept. Separable outputs have a matrix each, coupled ones (a softmax) share one;
output k's own block begins at ``place[k]`` of a flat result, with rows ``step[k]`` apart. What is left is
filled in the lower triangle at least if X is dense; if it is sparse, in one triangle or in the other: a
number is to be added to the one that mirrors it. Blocks, chunks and threads are as in ``gradient.pyx``.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from cython cimport floating as real

from sklloss.kernels.common cimport add_gram, packed_width
from sklloss.kernels.data cimport Dataset, column_at, row_start, value_at
from sklloss.kernels.linear.gradient cimport Chunks
from sklloss.kernels.sharing cimport NO_MEMORY, Pieces, Task, next_piece, share


# A class of a softmax that is less likely than this in a row is left out of the row's coupling of classes.
# What that adds must be small even along a common shift of all outputs, where the rest cancels.
cdef double NEGLIGIBLE = 1e-7


cdef class BlockPass(Task):
    cdef Dataset data
    cdef Chunks chunks
    cdef const float[:, ::1] floats      # the curvature, in either of these
    cdef const double[:, ::1] doubles
    cdef const Py_ssize_t[::1] starts, place, step
    cdef const Py_ssize_t[::1] columns                   # of a dense X
    cdef const Py_ssize_t[::1] heads, members, owners    # of a sparse X
    cdef double[:, ::1] result
    cdef bint softmax, coupled

    cdef void run(self, Pieces* pieces) noexcept nogil:
        if self.data.sparse and self.data.single:
            add_sparse(self, self.data, self.chunks, pieces, &self.floats[0, 0])
        elif self.data.sparse:
            add_sparse(self, self.data, self.chunks, pieces, &self.doubles[0, 0])
        elif self.data.single:
            add_dense(self, self.data, self.chunks, pieces, &self.floats[0, 0])
        else:
            add_dense(self, self.data, self.chunks, pieces, &self.doubles[0, 0])


def hessian_block(
    Dataset data,
    Chunks chunks,
    curvature,
    chosen,
    double[:, ::1] result,
    *,
    bint softmax,
    bint coupled,
):
    """Overwrite ``result[c]`` for each chunk of rows, of a dense X less its center.

    ``curvature`` (rows, outputs) is what a gradient pass left behind: second derivatives with their weights,
    or the probabilities p of a ``softmax``, which the weights of rows go with. The second derivative of such
    a row is diag(p) - p p', or if outputs are not to be ``coupled`` the diagonal of that alone, p (1 - p).

    ``chosen`` are the arrays starts, place and step; then for a dense X columns, for a sparse one heads,
    members and owners. Column j's parameters are ``members[heads[j]:heads[j + 1]]``, of the outputs
    ``owners[...]``. Those of a softmax are numbered column by column there: ``members`` just counts.
    """
    cdef BlockPass task = BlockPass()
    task.data, task.chunks, task.result = data, chunks, result
    task.softmax, task.coupled = softmax, coupled
    if data.single:
        task.floats = curvature
    else:
        task.doubles = curvature
    task.starts, task.place, task.step = chosen[:3]
    if data.sparse:
        task.heads, task.members, task.owners = chosen[3:]
    else:
        task.columns, = chosen[3:]
    share(task, chunks.count, chunks.n_threads)


cdef void add_dense(
    BlockPass task, Dataset data, Chunks chunks, Pieces* pieces, const real* curvature
) noexcept nogil:
    """The part of one thread in `hessian_block` of a dense X: pieces are chunks."""
    cdef const Py_ssize_t* columns = &task.columns[0]
    cdef const Py_ssize_t* starts = &task.starts[0]
    cdef const Py_ssize_t* place = &task.place[0]
    cdef const Py_ssize_t* step = &task.step[0]
    cdef Py_ssize_t outputs = data.outputs, features = data.features, size = starts[outputs]
    cdef Py_ssize_t row_step = data.row_step, column_step = data.column_step, block = chunks.block
    cdef const real* x = <const real*>data.x
    cdef const real* weight = <const real*>data.weight
    cdef const double* center = data.center
    cdef const real* column
    cdef const Py_ssize_t* chosen
    cdef Py_ssize_t chunk = next_piece(pieces)
    cdef Py_ssize_t first, rows, i, k, m, wide, slopes, line, both_line = (size + 7) // 8 * 8
    cdef double* z
    cdef double* packed
    cdef double* factor
    cdef double* row_weight
    cdef double* both  # what lies between the end of a row and the next stays 0
    cdef double* result
    cdef double p, offset
    if chunk < 0:
        return
    z = <double*>calloc(
        block * (both_line * (2 if task.coupled else 1) + packed_width(both_line) + 2), sizeof(double)
    )
    if z == NULL:
        task.fail(pieces, NO_MEMORY)
        return
    packed = z + block * both_line
    factor = packed + block * packed_width(both_line)
    row_weight = factor + block
    both = row_weight + block
    while chunk >= 0:
        result = &task.result[chunk, 0]
        memset(result, 0, task.result.shape[1] * sizeof(double))
        first = chunks.bounds[chunk]
        while first < chunks.bounds[chunk + 1]:
            rows = min(block, chunks.bounds[chunk + 1] - first)
            for i in range(rows):
                row_weight[i] = <double>weight[first + i] if task.softmax and weight != NULL else 1.0
            for k in range(outputs):
                wide = starts[k + 1] - starts[k]
                if wide == 0:
                    continue
                for i in range(rows):
                    p = <double>curvature[(first + i) * outputs + k]
                    if task.softmax and not task.coupled:
                        p = p * (1.0 - p)
                    factor[i] = p * row_weight[i]
                chosen = &columns[starts[k]]
                line = (wide + 7) // 8 * 8
                slopes = wide
                if chosen[wide - 1] == features:
                    slopes -= 1
                for i in range(rows):
                    for m in range(slopes, line):
                        z[i * line + m] = 1.0 if m < wide else 0.0
                if column_step != 1:
                    for m in range(slopes):
                        offset = center[chosen[m]]
                        column = x + first * row_step + chosen[m] * column_step
                        for i in range(rows):
                            z[i * line + m] = <double>column[i * row_step] - offset
                elif slopes and chosen[slopes - 1] - chosen[0] == slopes - 1:
                    for i in range(rows):
                        column = x + (first + i) * row_step + chosen[0]
                        for m in range(slopes):
                            z[i * line + m] = <double>column[m] - center[chosen[0] + m]
                else:
                    for i in range(rows):
                        column = x + (first + i) * row_step
                        for m in range(slopes):
                            z[i * line + m] = <double>column[chosen[m]] - center[chosen[m]]
                add_gram(1.0, z, line, rows, wide, factor, 1, result + place[k], step[k], packed)
                if task.coupled:
                    for i in range(rows):
                        p = <double>curvature[(first + i) * outputs + k]
                        for m in range(wide):
                            both[i * both_line + starts[k] + m] = p * z[i * line + m]
            if task.coupled:
                add_gram(-1.0, both, both_line, rows, size, row_weight, 1, result, size, packed)
            first += rows
        chunk = next_piece(pieces)
    free(z)


cdef inline void sort_by_column(
    Py_ssize_t* column, Py_ssize_t* found, Py_ssize_t* owner, double* x, Py_ssize_t count
) noexcept nogil:
    """Put what a row touches in the order of its columns, in which most rows come."""
    cdef Py_ssize_t i, j, c, f, o
    cdef double value
    for i in range(1, count):
        c = column[i]
        if column[i - 1] <= c:
            continue
        f = found[i]
        o = owner[i]
        value = x[i]
        j = i
        while j > 0 and column[j - 1] > c:
            column[j] = column[j - 1]
            found[j] = found[j - 1]
            owner[j] = owner[j - 1]
            x[j] = x[j - 1]
            j -= 1
        column[j] = c
        found[j] = f
        owner[j] = o
        x[j] = value


cdef void add_sparse(
    BlockPass task, Dataset data, Chunks chunks, Pieces* pieces, const real* curvature
) noexcept nogil:
    """The part of one thread for a CSR X: products of the few parameters that a row touches."""
    cdef const Py_ssize_t* heads = &task.heads[0]
    cdef const Py_ssize_t* members = &task.members[0]
    cdef const Py_ssize_t* owners = &task.owners[0]
    cdef const Py_ssize_t* starts = &task.starts[0]
    cdef const Py_ssize_t* place = &task.place[0]
    cdef const Py_ssize_t* step = &task.step[0]
    cdef const real* weight = <const real*>data.weight
    cdef Py_ssize_t outputs = data.outputs, features = data.features, size = starts[outputs]
    cdef Py_ssize_t chunk = next_piece(pieces)
    cdef Py_ssize_t row, end, i, j, k, a, b, column, count, kept, coefficients, low, high
    cdef Py_ssize_t intercepts = heads[features + 1] - heads[features]
    # what a row touches as it comes, then output by output
    cdef Py_ssize_t* found
    cdef double* x
    cdef Py_ssize_t* owner
    cdef Py_ssize_t* place_of
    cdef Py_ssize_t* column_of
    cdef Py_ssize_t* until
    cdef Py_ssize_t* sorted_found
    cdef double* sorted_x
    cdef double* scaled_x
    cdef double* intercept_p
    cdef double* h
    cdef double value, p, w
    cdef double* result
    if chunk < 0:
        return
    found = <Py_ssize_t*>malloc((5 * size + outputs + 1) * sizeof(Py_ssize_t))
    x = <double*>malloc((4 * size + 1) * sizeof(double))
    if found == NULL or x == NULL:
        free(found)
        free(x)
        task.fail(pieces, NO_MEMORY)
        return
    owner = found + size
    sorted_found = found + 2 * size
    place_of = found + 3 * size
    column_of = found + 4 * size
    until = found + 5 * size
    sorted_x = x + size
    scaled_x = x + 2 * size
    intercept_p = x + 3 * size
    while chunk >= 0:
        result = &task.result[chunk, 0]
        memset(result, 0, task.result.shape[1] * sizeof(double))
        for row in range(chunks.bounds[chunk], chunks.bounds[chunk + 1]):
            end = row_start(data, row + 1)
            memset(until, 0, (outputs + 1) * sizeof(Py_ssize_t))
            count = 0
            for i in range(row_start(data, row), end + 1):
                if i < end:
                    column = column_at(data, i)
                    value = value_at(data, i)
                else:
                    column = features
                    value = 1.0
                for j in range(heads[column], heads[column + 1]):
                    if count == size:
                        break  # a matrix with repeated entries: they are summed before it comes here
                    found[count] = members[j]
                    owner[count] = owners[j]
                    x[count] = value
                    column_of[count] = column
                    until[owners[j] + 1] += 1
                    count += 1
            sort_by_column(column_of, found, owner, x, count)
            for k in range(outputs):
                until[k + 1] += until[k]
            for i in range(count):
                place_of[i] = until[owner[i]]
                until[owner[i]] += 1
            for i in range(count):
                sorted_found[place_of[i]] = found[i]
                sorted_x[place_of[i]] = x[i]
            # until[k] is now where output k ends
            w = <double>weight[row] if task.softmax and weight != NULL else 1.0
            low = 0
            for k in range(outputs):
                high = until[k]
                p = w * <double>curvature[row * outputs + k]
                if task.softmax and not task.coupled:
                    p = p * (1.0 - <double>curvature[row * outputs + k])
                if p > 0.0:
                    for a in range(low, high):
                        value = p * sorted_x[a]
                        h = result + sorted_found[a] * size
                        if not task.softmax:
                            h = result + place[k]
                            h = h + (sorted_found[a] - starts[k]) * step[k] - starts[k]
                        for b in range(low, a + 1):
                            h[sorted_found[b]] += value * sorted_x[b]
                low = high
            if not task.coupled:
                continue
            # the intercepts come last and follow each other
            coefficients = count - intercepts
            kept = 0
            for a in range(coefficients):
                p = <double>curvature[row * outputs + owner[a]]
                if p >= NEGLIGIBLE:
                    sorted_found[kept] = found[a]
                    scaled_x[kept] = p * x[a]
                    kept += 1
            for a in range(intercepts):
                intercept_p[a] = <double>curvature[row * outputs + owner[coefficients + a]]
            for a in range(kept):
                value = w * scaled_x[a]
                h = result + sorted_found[a] * size
                for b in range(a + 1):
                    h[sorted_found[b]] -= value * scaled_x[b]
                h = h + size - intercepts
                for b in range(intercepts):
                    h[b] -= value * intercept_p[b]
            for a in range(intercepts):
                value = w * intercept_p[a]
                h = result + (size - intercepts + a) * size + size - intercepts
                for b in range(a + 1):
                    h[b] -= value * intercept_p[b]
        chunk = next_piece(pieces)
    free(found)
    free(x)
