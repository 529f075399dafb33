"""The feeder, for a supervisor of an older version."""

from gaiod.feeder.process import main

if __name__ == "__main__":
    main()
