"""Intel's extension: its LogisticRegression has scikit-learn's interface."""

from rivals.sklearn_ import ScikitLearn


class Sklearnex(ScikitLearn):
    name = "sklearnex"
    module = "sklearnex"
    packages = ("scikit-learn-intelex",)
    # It changes nothing in scikit-learn's losses, searches over small problems or networks.
    kernel_ways = search_ways = path_ways = network_ways = default_ways = staticmethod(
        lambda problem, options: ()
    )
    regression_ways = regression_path_ways = kernel_ways

    def _classifier(self):
        from sklearnex.linear_model import LogisticRegression

        return LogisticRegression

    def linear_ways(self, problem, options):
        if problem.l1_ratio or problem.sparse:  # it hands these on to scikit-learn
            return ()
        return ("lbfgs",) if options["quick"] else ("lbfgs", "newton-cg")
