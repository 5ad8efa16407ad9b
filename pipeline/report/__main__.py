"""Entry point of `python -m pipeline.report`."""

from pipeline.report.build import main

if __name__ == "__main__":
    main()
