"""torch: loops that a careful user writes by hand. Full-batch L-BFGS, and Adam over shuffled slices."""

import itertools

import numpy as np

from rivals.base import Job, Rival, host, on_device


class Torch(Rival):
    name = "torch"
    module = "torch"
    packages = ("torch",)
    defaults = False

    def start(self):
        import torch

        self.threads = torch.get_num_threads()

    def about(self):
        return {**super().about(), "torch threads": self.threads}

    def kernel_ways(self, case, options):
        # what torch.nn.functional has, the focal loss as torchvision writes it, and the squared hinge
        absent = ("quantile", "log_cosh", "gamma", "tweedie", "softmax_focal", "generalized_cross_entropy")
        return () if case.loss in absent else ("forward and backward",)

    def kernel_job(self, case, way, setting):
        import torch
        from torch.nn import functional

        torch.set_num_threads(1)
        raw = torch.from_numpy(case.raw.copy()).requires_grad_()
        y = torch.from_numpy(case.codes if case.target is None else case.target)

        def focal():
            each = functional.binary_cross_entropy_with_logits(raw, y, reduction="none")
            p = torch.sigmoid(raw)
            p_t = p * y + (1 - p) * (1 - y)
            return (each * (1 - p_t) ** case.parameter).sum()

        forward = {
            "cross_entropy": lambda: functional.cross_entropy(raw, y, reduction="sum"),
            "log_loss": lambda: functional.binary_cross_entropy_with_logits(raw, y, reduction="sum"),
            "focal": focal,
            "half_squared_error": lambda: 0.5 * functional.mse_loss(raw, y, reduction="sum"),
            "absolute_error": lambda: functional.l1_loss(raw, y, reduction="sum"),
            "huber": lambda: functional.huber_loss(raw, y, delta=case.parameter, reduction="sum"),
            "squared_hinge": lambda: (torch.relu(1 - (2 * y - 1) * raw) ** 2).sum(),
            "poisson": lambda: functional.poisson_nll_loss(raw, y, reduction="sum"),
        }[case.loss]

        def run():
            loss = forward()
            (gradient,) = torch.autograd.grad(loss, raw)
            return loss, gradient

        return Job(run, lambda found: {"loss": float(found[0])})

    def linear_ways(self, problem, options):
        # Its products of a sparse matrix take seconds; L-BFGS wants a smooth objective.
        if problem.sparse or problem.l1_ratio:
            return ()
        if problem.X.size >= 1_000_000:
            return ("L-BFGS",)
        return ("L-BFGS, 1 thread",) if options["quick"] else ("L-BFGS", "L-BFGS, 1 thread")

    def linear_ladder(self, problem, way):
        return [{"max_iter": n} for n in (20, 50, 100, 200, 500, 1000, 2000, 5000)]

    def linear_job(self, problem, way, setting, device="cpu"):
        import torch
        from torch.nn import functional

        torch.set_num_threads(1 if way.endswith("1 thread") else self.threads)
        X = torch.from_numpy(problem.X).to(device)
        softmax = problem.objective == "softmax"
        dtype = problem.X.dtype
        y = torch.from_numpy(problem.y if softmax else problem.y.reshape(len(X), -1).astype(dtype)).to(device)
        weight = problem.weights
        weight = None if weight is None else torch.from_numpy(weight.astype(dtype)).to(device)
        total = float(len(X) if weight is None else problem.weights.sum())
        penalty = 0.5 / (problem.C * total)

        def data_loss(raw):
            if softmax:
                each = functional.cross_entropy(raw, y, reduction="sum" if weight is None else "none")
            elif weight is None:
                each = functional.binary_cross_entropy_with_logits(raw, y, reduction="sum")
            else:
                each = functional.binary_cross_entropy_with_logits(raw, y, reduction="none").sum(dim=1)
            return (each if weight is None else each @ weight) / total

        def run():
            W, b = (
                torch.zeros(shape, dtype=X.dtype, device=device, requires_grad=True)
                for shape in ((X.shape[1], problem.outputs), (problem.outputs,))
            )
            optimizer = torch.optim.LBFGS(
                [W, b],
                max_iter=setting["max_iter"],
                tolerance_grad=1e-12,
                tolerance_change=0.0,
                history_size=10,
                line_search_fn="strong_wolfe",
            )

            def closure():
                optimizer.zero_grad()
                loss = data_loss(torch.addmm(b, X, W)) + penalty * (W * W).sum()
                loss.backward()
                return loss

            optimizer.step(closure)
            return W, b, optimizer

        return on_device(
            device,
            run,
            lambda found: {
                "coef": host(found[0]).T,
                "intercept": host(found[1]),
                "n_iter": found[2].state[found[2]._params[0]]["n_iter"],
            },
        )

    def device_linear_ways(self, problem, options):
        return ("L-BFGS",)

    device_linear_ladder = linear_ladder

    def device_linear_job(self, problem, way, setting):
        return self.linear_job(problem, way, setting, problem.device)

    def network_ways(self, problem, options):
        one = "fused Adam, 1 thread"
        return (one,) if options["quick"] else ("fused Adam", one)

    def network_job(self, problem, way, setting):
        import torch

        torch.set_num_threads(1 if way.endswith("1 thread") else self.threads)
        X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
        if problem.loss != "cross_entropy":
            y = y.reshape(-1, 1)
        return Job(lambda: _train(problem, X, y, setting), _read_network)

    def device_network_ways(self, problem, options):
        return ("fused Adam",)

    def device_network_job(self, problem, way, setting):
        import torch

        X, y = torch.from_numpy(problem.X).to(problem.device), torch.from_numpy(problem.y).to(problem.device)
        return on_device(problem.device, lambda: _train(problem, X, y, setting), _read_network)


def _train(problem, X, y, setting):
    import torch
    from torch import nn

    torch.manual_seed(setting["seed"])
    classes = problem.loss == "cross_entropy"
    sizes = (X.shape[1], *problem.hidden, int(y.max()) + 1 if classes else 1)
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs, dtype=X.dtype, device=X.device)
        # scikit-learn's start, so that all compare after the same epochs
        bound = np.sqrt(6 / (inputs + outputs))
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.uniform_(layer.bias, -bound, bound)
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    weights = [layer.weight for layer in net if isinstance(layer, nn.Linear)]
    biases = [layer.bias for layer in net if isinstance(layer, nn.Linear)]
    optimizer = torch.optim.Adam(
        [{"params": weights, "weight_decay": problem.alpha / problem.batch_size}, {"params": biases}],
        lr=problem.learning_rate,
        fused=True,
    )
    loss_function, scale = (nn.CrossEntropyLoss(), 1.0) if classes else (nn.MSELoss(), 0.5)
    for _ in range(setting["epochs"]):
        order = torch.randperm(len(X), device=X.device)
        batches = X[order].split(problem.batch_size), y[order].split(problem.batch_size)
        for batch, wanted in zip(*batches, strict=True):
            optimizer.zero_grad()
            loss = scale * loss_function(net(batch), wanted)
            loss.backward()
            optimizer.step()
    return net


def _read_network(net):
    linear = [layer for layer in net if hasattr(layer, "weight")]
    return {
        "coefs": [host(layer.weight).T for layer in linear],
        "intercepts": [host(layer.bias) for layer in linear],
    }
