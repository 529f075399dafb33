"""The worker, for a supervisor of an older version: it is told that it must be upgraded."""

from gaiod.worker.process import main

if __name__ == "__main__":
    main()
