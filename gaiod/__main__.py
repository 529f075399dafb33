"""python -m gaiod: the same as the command gaiod."""

from gaiod.cli import forget_working_directory, main

if __name__ == "__main__":
    forget_working_directory()
    main(prog_name="gaiod")
