"""Entry point of `python -m pipeline.label_report`."""

from pipeline.label_report.build import main

if __name__ == "__main__":
    main()
