"""How the jobs of a sweep are run, one file per option of `launcher=`: each job is whole and knows of no other."""
