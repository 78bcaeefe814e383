"""How the jobs of a sweep are run, one file per option of `launcher=`: jobs are independent of each other."""
