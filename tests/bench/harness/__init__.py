"""The parts of the benchmark runner: counters, child processes, runs and tables."""
