"""The core's tests: one contract, two engines. They run on whichever engine the process has."""
