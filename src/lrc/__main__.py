"""The command `lrc`, `python -m lrc`, and `accelerate launch -m lrc`."""

from lrc.runtime.startup import begin


def main() -> None:
    """Run the command line; a signal that comes while it is imported is taken by its handlers, afterwards."""
    begin()
    from lrc.cli import main as run

    run()


if __name__ == "__main__":
    main()
