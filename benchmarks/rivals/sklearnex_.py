"""Intel's extension: its LogisticRegression has scikit-learn's interface."""

from rivals.sklearn_ import ScikitLearn


class Sklearnex(ScikitLearn):
    name = "sklearnex"
    module = "sklearnex"
    packages = ("scikit-learn-intelex",)
    # It changes nothing in scikit-learn's losses, searches over small problems or networks.
    kernel_ways = search_ways = network_ways = staticmethod(lambda problem, options: ())

    def _estimator(self, problem, **given):
        from sklearn.multiclass import OneVsRestClassifier
        from sklearnex.linear_model import LogisticRegression

        model = LogisticRegression(C=problem.C, **given)
        return OneVsRestClassifier(model) if problem.objective == "multilabel" else model

    def linear_ways(self, problem, options):
        return ("lbfgs",) if options["quick"] else ("lbfgs", "newton-cg")
