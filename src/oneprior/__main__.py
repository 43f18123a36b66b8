"""`python -m oneprior` is the command line."""

from oneprior.apps.main import main

if __name__ == "__main__":
    main()
