"""Newton steps over few rows, where all that surrounds the arithmetic would cost more than the arithmetic.

All is in double, whatever the dtype of X.
"""

from libc.math cimport HUGE_VAL, fabs, isfinite, sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

from sklloss.kernels.common cimport coordinate_minimum
from sklloss.kernels.data cimport Batch, Dataset, batch_kernel, bind
from sklloss.kernels.linear.hessian cimport Model, add_block, free_model, make_model, unfold_pairs


# Of the minimum of a quadratic model plus an L1 norm: the most sweeps before a step over the support, and the
# most such steps; the relative rounding error of a slope.
cdef enum:
    MAX_SWEEPS = 10
    MAX_TURNS = 30

cdef double ROUNDING = 1e-10

# Of a start from a sample: one of so many blocks of rows; the least rows in a sample, and for each parameter;
# the rows of a block; the most steps; and the relative gap, which need be no less than the sample's error.
cdef enum:
    SAMPLE_EVERY = 8
    LEAST_SAMPLE = 512
    SAMPLE_ROWS = 32
    SAMPLE_BLOCK = 32
    MAX_SAMPLE_STEPS = 30

cdef double SAMPLE_GAP = 1e-4

# Below this relative gap the next step may use the same Hessian: if it predicts no more than REUSE_RATIO of
# what the step before predicted. It is the last if it predicts no more than STALE_SHARE of the allowed gap.
cdef double NEAR = 1e-3
cdef double REUSE_RATIO = 0.1
cdef double STALE_SHARE = 0.25

# The relative rounding error of the difference of two values, which are sums in double.
cdef double VALUE_ROUNDING = 1e-14


cdef struct Newton:
    # A problem over few rows, the rule of its steps (see `newton_steps`), and memory.
    Model model
    Py_ssize_t block, size
    double scale, saturated
    const double* ridge
    const double* l1
    bint has_l1
    bint lazy            # whether a Hessian costs so much that steps near the end may use an earlier one
    double gap, vanished, start, enough, noise, underestimate, close_gap
    double* memory       # of all that follow; the caller frees it
    double* hessian      # (size, size)
    double* pair_sums    # of coupled outputs
    double* gradient
    double* new_gradient
    double* direction
    double* point
    double* loss         # the loss's sums, and what rounding left over
    double* scratch      # of `factorise` and `l1_direction`


cdef void make_newton(Newton* newton, Py_ssize_t size):
    cdef Py_ssize_t width = newton.model.width, sums = newton.model.pairs * (width * (width + 1) // 2)
    cdef Py_ssize_t scratch = size * (size + 5) if newton.has_l1 else size
    newton.size = size
    newton.memory = <double*>calloc(
        size * size + sums + 4 * size + 2 * newton.model.outputs + scratch, sizeof(double)
    )
    if newton.memory == NULL:
        free_model(&newton.model)
        raise MemoryError()
    newton.hessian = newton.memory
    newton.pair_sums = newton.hessian + size * size
    newton.gradient = newton.pair_sums + sums
    newton.new_gradient = newton.gradient + size
    newton.direction = newton.new_gradient + size
    newton.point = newton.direction + size
    newton.loss = newton.point + size
    newton.scratch = newton.loss + 2 * newton.model.outputs


cdef bint evaluate(
    Dataset data, Newton* newton, Py_ssize_t every, const double* w, double* value, double* gradient,
    bint curved,
) noexcept nogil:
    """Objective, gradient and, if it is ``curved``, the Hessian's lower triangle; False for bad codes.

    Only ``every``-th block of rows is used, in place of all. The gradient is that without the L1 norm. The
    rows of X are in ``model.z``. Over all rows the results have the same bits as those of `hessian`.
    """
    cdef Model* model = &newton.model
    cdef Py_ssize_t K = model.outputs, width = model.width, parameters = K * width, line = parameters
    cdef Py_ssize_t first = 0, rows, i, j, k, a
    cdef double penalty_slope, mean, scale = newton.scale * every, total = 0.0, norm = 0.0
    cdef double* hessian = newton.hessian
    cdef double* sums = NULL
    memset(newton.loss, 0, 2 * K * sizeof(double))
    memset(gradient, 0, parameters * sizeof(double))
    if curved and model.coupled:
        sums = newton.pair_sums
        memset(sums, 0, model.pairs * (width * (width + 1) // 2) * sizeof(double))
    elif curved:
        sums = hessian
        memset(hessian, 0, line * line * sizeof(double))
    while first < data.rows:
        rows = min(newton.block, data.rows - first)
        if add_block(
            data, model, w, model.z + first * model.step, first, rows, newton.loss, gradient, sums
        ) != -1:
            return False
        first += every * newton.block
    for i in range(parameters):
        penalty_slope = newton.ridge[i] * w[i]
        total += penalty_slope * w[i]
        norm += newton.l1[i] * fabs(w[i])
        gradient[i] = gradient[i] * scale + penalty_slope
    value[0] = scale * newton.loss[0]
    value[0] += 0.5 * total
    value[0] += norm
    value[0] -= newton.saturated
    if not curved:
        return True
    if model.coupled:
        unfold_pairs(sums, hessian, K, width)
    for i in range(parameters):
        for j in range(i + 1):
            hessian[i * line + j] *= scale
    if model.coupled:
        for j in range(width):
            if newton.ridge[j] == 0.0 and newton.l1[j] == 0.0:
                # nothing holds what the outputs share: a multiple of its square does, see LinearObjective
                mean = 0.0
                for k in range(K):
                    i = k * width + j
                    mean += hessian[i * line + i]
                mean /= K
                for k in range(K):
                    for a in range(k + 1):
                        hessian[(k * width + j) * line + a * width + j] += mean
    for i in range(parameters):
        hessian[i * line + i] += newton.ridge[i]
    return True


cdef bint factorise(double* matrix, Py_ssize_t size, double* root) noexcept nogil:
    """Replace a lower triangle, scaled by ``root`` to a unit diagonal, by its factor; False without one."""
    cdef Py_ssize_t i, j
    cdef int failed = 0, n = <int>size
    cdef double f
    for i in range(size):
        f = matrix[i * size + i]
        root[i] = 1.0 / sqrt(f) if f > 0.0 else 1.0
    for i in range(size):
        for j in range(i):
            matrix[i * size + j] *= root[i] * root[j]
        matrix[i * size + i] = 1.0
    if size > 0:
        # row-major lower is column-major upper
        dpotrf(b"U", &n, matrix, &n, &failed)
    return not failed


cdef bint solve_factor(
    const double* factor, const double* root, const double* gradient, Py_ssize_t size, double* d
) noexcept nogil:
    """d = -matrix**-1 gradient, by the matrix's factor; False if d is not finite."""
    cdef Py_ssize_t i
    cdef int failed = 0, n = <int>size, one = 1
    for i in range(size):
        d[i] = -gradient[i] * root[i]
    if size > 0:
        dpotrs(b"U", &n, &one, <double*>factor, &n, d, &n, &failed)
    for i in range(size):
        d[i] *= root[i]
        if not isfinite(d[i]):
            return False
    return True


cdef bint flat_slope(const double* matrix, const double* gradient, Py_ssize_t size) noexcept nogil:
    """Whether there is a slope along which there is no curvature."""
    cdef Py_ssize_t i
    for i in range(size):
        if not matrix[i * size + i] > 0.0 and gradient[i] != 0.0:
            return True
    return False


cdef bint l1_direction(Newton* newton, const double* w) noexcept nogil:
    """Set the direction to the minimum of the quadratic model plus the L1 norm; False if it is not found.

    Sweeps of coordinate descent find the support and the signs. Once these stay the same, Newton's step over
    the support goes to its minimum, or as far as the signs allow. The minimum is found where such a step is
    whole and no parameter at 0 would leave it.
    """
    cdef Py_ssize_t size = newton.size, _turn, _sweep, i, j
    cdef const double* l1 = newton.l1
    cdef double* hessian = newton.hessian
    cdef double* slope = newton.scratch
    cdef double* z = slope + size
    cdef double t
    cdef bint found = False
    for i in range(size):
        for j in range(i):
            hessian[j * size + i] = hessian[i * size + j]
    memcpy(slope, newton.gradient, size * sizeof(double))
    memcpy(z, w, size * sizeof(double))
    for _turn in range(MAX_TURNS):
        for _sweep in range(MAX_SWEEPS):
            if not descend_all(hessian, size, l1, slope, z):
                break
        if not move_on_face(hessian, size, l1, slope, z, &found):
            return False
        # anew, since rounding would add up
        memcpy(slope, newton.gradient, size * sizeof(double))
        for j in range(size):
            t = z[j] - w[j]
            newton.direction[j] = t
            if t != 0.0:
                for i in range(size):
                    slope[i] += t * hessian[j * size + i]
        for i in range(size):
            if z[i] == 0.0 and fabs(slope[i]) > l1[i] * (1.0 + ROUNDING):
                found = False
        if found:
            break
    return found


cdef bint descend_all(
    const double* hessian, Py_ssize_t size, const double* l1, double* slope, double* z
) noexcept nogil:
    """Minimise along each coordinate in turn; returns whether the sign of one has changed."""
    cdef Py_ssize_t i, j
    cdef double t, moved
    cdef bint changed = False
    for j in range(size):
        t = coordinate_minimum(z[j], slope[j], hessian[j * size + j], l1[j], -HUGE_VAL, HUGE_VAL)
        moved = t - z[j]
        if moved != 0.0:
            changed = changed or (t > 0.0) != (z[j] > 0.0) or (t < 0.0) != (z[j] < 0.0)
            z[j] = t
            for i in range(size):
                slope[i] += moved * hessian[j * size + i]
    return changed


cdef bint move_on_face(
    const double* hessian, Py_ssize_t size, const double* l1, const double* slope, double* z, bint* whole
) noexcept nogil:
    """Move z towards the minimum for its signs, up to where one changes; False if there is no such step.

    Parameters at 0 that have an L1 norm stay there. ``slope`` is that of the quadratic at z, and the memory
    behind z is used.
    """
    cdef double* part = z + size
    cdef double* move = part + size
    cdef double* root = move + size
    cdef double* block = root + size
    cdef double length = 1.0, to_zero
    cdef Py_ssize_t i, j, a = 0, b, k = 0
    for i in range(size):
        k += z[i] != 0.0 or l1[i] == 0.0
    for i in range(size):
        if z[i] == 0.0 and l1[i] > 0.0:
            continue
        part[a] = slope[i] + (l1[i] if z[i] > 0.0 else -l1[i] if z[i] < 0.0 else 0.0)
        b = 0
        for j in range(i + 1):
            if z[j] != 0.0 or l1[j] == 0.0:
                block[a * k + b] = hessian[i * size + j]
                b += 1
        a += 1
    if flat_slope(block, part, k) or not factorise(block, k, root):
        return False
    if not solve_factor(block, root, part, k, move):
        return False
    a = 0
    for i in range(size):
        part[i] = z[i]
        if z[i] != 0.0 or l1[i] == 0.0:
            part[i] += move[a]
            if l1[i] > 0.0 and part[i] * z[i] <= 0.0:
                length = min(length, -z[i] / move[a])
            a += 1
    whole[0] = length == 1.0
    for i in range(size):
        to_zero = z[i] / (z[i] - part[i]) if l1[i] > 0.0 and part[i] * z[i] <= 0.0 and z[i] != 0.0 else 2.0
        z[i] = 0.0 if to_zero <= length else part[i] if whole[0] else z[i] + length * (part[i] - z[i])
    return True


cdef bint newton_direction(Newton* newton, const double* w, bint fresh) noexcept nogil:
    """Set the direction of the next step from w; ``fresh`` if the Hessian has not been used yet."""
    if newton.has_l1:
        return l1_direction(newton, w)
    if fresh and (
        flat_slope(newton.hessian, newton.gradient, newton.size)
        or not factorise(newton.hessian, newton.size, newton.scratch)
    ):
        return False
    return solve_factor(newton.hessian, newton.scratch, newton.gradient, newton.size, newton.direction)


cdef Py_ssize_t take_steps(
    Dataset data, Newton* newton, Py_ssize_t every, double* w, bint in_place, double* values,
    Py_ssize_t most, bint* solved,
) noexcept nogil:
    """Steps from w over ``every``-th block of the rows; their number, see `newton_steps`.

    The parameters after each step replace those before it if ``in_place``, else they follow them.
    """
    cdef Py_ssize_t taken = 0, size = newton.size, i
    cdef double value, new_value = 0.0, slope, predicted_decrease, earlier = 0.0, least, sums
    cdef bint fresh = True, beyond
    solved[0] = False
    if not evaluate(data, newton, every, w, &value, newton.gradient, True):
        return 0
    values[0] = value
    least = newton.vanished * min(value, newton.start)
    if not value <= newton.start:
        return 0
    while taken < most and not solved[0] and value > least and isfinite(value):
        sums = fabs(value) + fabs(newton.saturated)  # a value is a difference
        if not newton_direction(newton, w, fresh):
            break
        predicted_decrease = slope = 0.0
        for i in range(size):
            slope -= newton.gradient[i] * newton.direction[i]
            newton.point[i] = w[i] + newton.direction[i]
        predicted_decrease = slope / 2
        if newton.has_l1:
            # ``scratch`` has the slope of the quadratic model at its minimum
            for i in range(size):
                predicted_decrease -= 0.5 * newton.scratch[i] * newton.direction[i]
                predicted_decrease -= newton.l1[i] * (fabs(newton.point[i]) - fabs(w[i]))
            slope = predicted_decrease
        solved[0] = predicted_decrease <= newton.gap * fabs(value) * (1.0 if fresh else STALE_SHARE)
        if not (fresh or solved[0] or predicted_decrease <= REUSE_RATIO * earlier):
            if not evaluate(data, newton, every, w, &value, newton.gradient, True):
                break
            fresh = True
            continue
        # Near the end a step squares the error, so the last one is taken too.
        fresh = not solved[0] and not (newton.lazy and predicted_decrease <= NEAR * fabs(value))
        if not (
            evaluate(data, newton, every, newton.point, &new_value, newton.new_gradient, fresh)
            and new_value <= value - newton.enough * slope + newton.noise * sums
        ):
            solved[0] = False
            break
        taken += 1
        earlier = predicted_decrease
        beyond = newton.gap <= newton.close_gap
        beyond = beyond and (
            value - new_value > newton.underestimate * predicted_decrease + VALUE_ROUNDING * sums
        )
        value = values[taken] = new_value
        if not in_place:
            w += size
        memcpy(w, newton.point, size * sizeof(double))
        memcpy(newton.gradient, newton.new_gradient, size * sizeof(double))
        if beyond and not fresh:
            solved[0] = False
            if not evaluate(data, newton, every, w, &value, newton.gradient, True):
                break
            fresh = True
    return taken


def newton_steps(
    loss,
    Dataset data,
    bint coupled,
    Py_ssize_t block,
    constants,
    const double[::1] ridge,
    const double[::1] l1,
    double[:, ::1] points,
    double[::1] values,
    rule,
):
    """Whole Newton steps from ``points[0]``, for as long as each one lowers the value enough.

    For few rows, where all that surrounds the arithmetic would cost more than the arithmetic. With an L1 norm
    each step goes to the minimum of the quadratic model plus the norm (proximal Newton). If the rows are many
    enough for it, a start at 0 is first replaced by the minimum over every 8th block of them.

    ``rule`` is (gap, vanished, start, enough, noise, underestimate, close_gap). A problem counts as solved
    where the decrease that a step predicts, half the Newton decrement, is no more than ``gap`` times its
    value, and a step is taken that lowers the value by ``enough`` of what its slope predicts, less the
    relative ``noise``, and, for a gap up to ``close_gap``, by no more than ``underestimate`` times what its
    model predicts (see `solvers.base.underestimates`). Anything less
    simple ends the steps: a value that is more than ``start`` before the first, a Hessian without a factor, a
    slope along which there is no curvature, a step that is too long, a value of ``vanished`` times the first
    or less (or times ``start``, if that is lower), a number that is not finite.

    ``loss`` is a `CompiledLoss` for double, X is dense with a center, and there is a single problem: one
    output, or ``coupled`` ones. ``block`` is the number of rows per block. The
    objective is ``scale`` times the loss's sum, less ``saturated``, which are the ``constants``, plus the
    penalties of ``ridge`` and ``l1``. ``points`` (steps + 1, size) and ``values`` (steps + 1,) are filled
    with the parameters and the value at the start and after each step; no more steps are taken than they have
    places for.

    Returns the number of steps, and whether the problem is solved.
    """
    cdef Batch batch
    cdef batch_kernel kernel
    cdef Newton newton
    cdef Py_ssize_t size = ridge.shape[0], taken = 0, most = values.shape[0] - 1, i
    cdef bint solved = False, at_zero = True, sampled = False
    cdef double gap, null
    cdef double* w = &points[0, 0]
    cdef double[MAX_SAMPLE_STEPS + 1] sample_values
    gap, newton.vanished, newton.start, newton.enough, newton.noise = rule[:5]
    newton.underestimate, newton.close_gap = rule[5:]
    newton.scale, newton.saturated = constants
    newton.block, newton.ridge, newton.l1 = block, &ridge[0], &l1[0]
    null = newton.start
    newton.has_l1 = False
    newton.lazy = data.rows >= SAMPLE_EVERY * max(LEAST_SAMPLE, SAMPLE_ROWS * size)
    for i in range(size):
        newton.has_l1 = newton.has_l1 or l1[i] != 0.0
        at_zero = at_zero and w[i] == 0.0
    bind(loss, False, &batch, &kernel)  # a compiled kernel keeps no Python object
    if not make_model(
        &newton.model, &batch, kernel, data, size // data.outputs, coupled, coupled, block, data.rows
    ):
        raise MemoryError()
    make_newton(&newton, size)
    with nogil:
        data.load_rows(NULL, 0, data.rows, newton.model.z, newton.model.step, False)
        if at_zero and most > 0 and newton.lazy and newton.saturated == 0.0:
            newton.gap = SAMPLE_GAP
            newton.block = SAMPLE_BLOCK
            take_steps(data, &newton, SAMPLE_EVERY, w, True, sample_values, MAX_SAMPLE_STEPS, &solved)
            newton.block = block
            sampled = solved
            if sampled:
                newton.start = min(null, sample_values[0])
            else:
                memset(w, 0, size * sizeof(double))
        newton.gap = gap
        taken = take_steps(data, &newton, 1, w, False, &values[0], most, &solved)
        if sampled and taken == 0 and not solved:
            # the sample may have missed the rows that matter
            newton.start = null
            memset(w, 0, size * sizeof(double))
            taken = take_steps(data, &newton, 1, w, False, &values[0], most, &solved)
        free_model(&newton.model)
        free(newton.memory)
    return taken, solved
