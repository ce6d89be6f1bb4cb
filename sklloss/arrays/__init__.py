"""Devices and threads: where arrays live, how they are moved, and how work on them is divided."""
