"""Define what crosses from one stage to the next, one file per stage.  numpy only."""
