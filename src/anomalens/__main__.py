"""`python -m anomalens` is `anomalens`; `torchrun -m anomalens train` trains in several processes."""

from anomalens.cli import main

if __name__ == "__main__":
    main()
