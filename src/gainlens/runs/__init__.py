"""Run the stages in order: open the models, measure each, judge or tabulate, write the run folder.

In goes a spec; out comes a `Comparison` or a `Measurement` and, if asked for, a run folder.  This
room also resumes an interrupted run, repeats a finished one, and measures small models in worker
processes.
"""
