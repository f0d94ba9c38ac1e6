"""`python -m eqflow`, for torchrun."""

from eqflow.cli import main

if __name__ == "__main__":
    main()
