"""Run the laboratory's commands: `python -m anomalens_lab --help`."""

from anomalens_lab.commands import main

if __name__ == "__main__":
    main()
