"""`python -m vertigym`: the command line, also for launchers such as torchrun."""

from vertigym.cli import main

if __name__ == "__main__":
    main()
