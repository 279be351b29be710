"""Run the command line as `python -m anomalens`, or as `torchrun -m anomalens train` in several processes."""

from anomalens.cli import main

if __name__ == "__main__":
    main()
