"""`python -m lrc`, and `accelerate launch -m lrc`."""

from lrc.cli import main

if __name__ == "__main__":
    main()
