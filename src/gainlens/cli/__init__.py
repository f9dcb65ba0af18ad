"""Turn a command line into a spec, run it, and turn the outcome into an exit status.

In go flags, which are generated from the specs in `core`.  Out come the terminal's text and a
status: 0 if the run finished, 2 for a user's mistake, 130 on Ctrl-C.
"""
