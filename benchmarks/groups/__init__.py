"""One module per group of problems, each with ``run(session)``."""
