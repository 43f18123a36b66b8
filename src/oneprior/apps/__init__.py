"""The doors: the command line, and the writer of self-contained HTML reports. No mathematics lives here."""
