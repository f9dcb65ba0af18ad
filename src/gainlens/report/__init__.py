"""Show a comparison to a reader, in the terminal and as a page.

The records of a run go in.  Out come lines on standard output (`terminal`) and one HTML file
(`page`).  Both show the tables of `tables`, and both say the answer in the words of `answer`.
"""
