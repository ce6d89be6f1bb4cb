"""Time to a test accuracy on MNIST: a recipe for `MLPClassifier`, and the same network elsewhere.

``python benchmarks/mnist_accuracy.py --data DIR`` trains 784-256-10 networks, float32, on the 60000 training
images, each entrant in a process of its own, and prints the seconds of training and the accuracy on the
10000 test images. The recipe is a learning rate that warms up and falls to 0 over four epochs ("one-cycle"),
and smoothed labels. scikit-learn has neither: its network is stopped after the first epoch that reaches the
accuracy that is asked for, and pays nothing for the asking. torch runs the recipe, for fewer epochs and for
as many.
"""

import argparse
import multiprocessing
import statistics
import time

import numpy as np
import problems

HIDDEN = (256,)
BATCH = 128
RECIPE = {
    "learning_rate": "one-cycle",
    "learning_rate_init": 0.006,
    "max_iter": 4,
    "label_smoothing": 0.05,
}
WANTED = 0.98  # of the others
MOST_EPOCHS = 30


def images(folder):
    """(X, y) to train on and (X, y) to test on."""
    with np.load(f"{folder}/mnist.npz") as file:
        X, y = file["X"].astype(np.float32) / np.float32(255), file["y"].astype(np.intp)
    return (X[:60000], y[:60000]), (X[60000:], y[60000:])


def ours(train, test, seed, epochs):
    """The recipe."""
    from sklloss import MLPClassifier

    recipe = RECIPE | {"max_iter": epochs}
    model = MLPClassifier(HIDDEN, batch_size=BATCH, n_iter_no_change=np.inf, random_state=seed, **recipe)
    begin = time.perf_counter()
    model.fit(*train)
    return time.perf_counter() - begin, model.score(*test)


def scikit_learn(train, test, seed, epochs):
    """Adam at its defaults, until it is accurate enough."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(HIDDEN, batch_size=BATCH, random_state=seed)
    classes, seconds, score = np.unique(train[1]), 0.0, 0.0
    for _ in range(epochs):
        begin = time.perf_counter()
        model.partial_fit(*train, classes=classes)
        seconds += time.perf_counter() - begin
        score = model.score(*test)
        if score >= WANTED:
            break
    return seconds, score


def torch(train, test, seed, epochs):
    """The recipe in a plain loop, with fused Adam and no data loader."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    X, y = (torch.from_numpy(array) for array in train)
    begin = time.perf_counter()
    net = nn.Sequential(nn.Linear(784, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=RECIPE["learning_rate_init"], fused=True)
    batches = -(-len(X) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RECIPE["learning_rate_init"], total_steps=epochs * batches, cycle_momentum=False
    )
    loss = nn.CrossEntropyLoss(label_smoothing=RECIPE["label_smoothing"])
    for _ in range(epochs):
        order = torch.randperm(len(X))
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            loss(net(X[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        right = net(torch.from_numpy(test[0])).argmax(axis=1).numpy() == test[1]
    return seconds, float(right.mean())


def _serve(connection, folder, who, epochs):
    train, test = images(folder)
    globals()[who](train, test, 0, 1)  # imports, threads
    connection.send("ready")
    while (seed := connection.recv()) is not None:
        connection.send(globals()[who](train, test, seed, epochs))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="folder of mnist.npz (or SKLLOSS_DATA)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--torch-epochs", type=int, nargs="*", default=[2, 3, RECIPE["max_iter"]])
    options = parser.parse_args()
    folder = problems.data_folder(options.data)
    if folder is None:
        parser.error("it needs mnist.npz: name its folder with --data")
    entrants = [("ours", RECIPE["max_iter"]), ("scikit_learn", MOST_EPOCHS)]
    entrants += [("torch", epochs) for epochs in options.torch_epochs]
    context = multiprocessing.get_context("spawn")
    pipes, found = {}, {entrant: [] for entrant in entrants}
    for entrant in entrants:
        pipes[entrant], theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, folder, *entrant), daemon=True).start()
        theirs.close()  # so that the end of the other process is the end of the wait
        pipes[entrant].recv()
    for seed in range(1, options.seeds + 1):
        for entrant, pipe in pipes.items():
            pipe.send(seed)
            found[entrant].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    print("| who | epochs | seconds (least-largest) | test accuracy (least-largest) |\n|---|---|---|---|")
    for (who, epochs), runs in found.items():
        seconds, scores = zip(*runs, strict=True)
        shown = f"up to {epochs}" if who == "scikit_learn" else epochs
        print(
            f"| {who} | {shown} | {statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f}) "
            f"| {statistics.median(scores):.4f} ({min(scores):.4f}-{max(scores):.4f}) |"
        )


if __name__ == "__main__":
    main()
