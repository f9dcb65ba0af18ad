"""Run the stages in order: open the models, measure each, judge or tabulate, write the run folder.

Takes a spec; returns a `Comparison` or a `Measurement` and, if asked for, writes a run folder.
This folder also resumes an interrupted run, repeats a finished one, and measures small models in
worker processes.
"""
