"""Write records into a run folder and read them back: JSON, Parquet, CSV, and the folder's lock.

Takes a Comparison, gives files; takes a folder, gives the Comparison that was written.  No torch.
"""
