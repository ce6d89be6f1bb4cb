"""A path of objectives that differ in their penalty, minimised one from the other."""


def follow_path(objectives, start, minimise):
    """Minimise objectives one after the other, each from where the last one ended.

    Neighbours in the penalty are near each other, so that a fit from the last optimum takes a step or two
    where one from 0 takes many.

    Parameters
    ----------
    objectives : iterable of LinearObjective
        Over the same rows, from the strongest penalty to the weakest: the first is the one that is easy
        to reach from 0.
    start : ndarray of shape (problems, size)
        Where the first starts.
    minimise : callable
        ``minimise(objective, w)`` returns a Result.

    Yields
    ------
    objective, Result
    """
    w = start
    for objective in objectives:
        result = minimise(objective, w)
        w = result.w
        yield objective, result
