"""Data: how text or a task becomes the batches that the steps of a run read. One file for each option of `data=`.

(1) **Source** (`source.py`): the config class of an option builds a source. Text options read documents, split them
    into training and validation, and encode them into one stream of tokens per split, `end d1 end d2 ... end`
    (`text/`, `tokenizers/`). Tasks (`tasks/`) draw every row from a generator instead and skip step 2.
(2) **Packing** (`text/packing.py`): decides which spans of a stream form each row of `seq_len` tokens.
(3) **Row** (`source.Row`): tokens, targets already shifted by one, and the document of each token. `Source.row(split,
    epoch, index)` is a pure function of its arguments. `data=mixture` and `data=sequence` are sources made of sources.
(4) **Feed** (`feed.py`): which rows a step reads. `order.py` permutes the rows of each epoch, `curriculum.py` sets how
    many rows of which length a step has, `loader.py` picks the rows of a micro-batch, `workers.py` reads ahead in
    other processes. All of it is a function of (seed, step), so a checkpoint stores no position in the data.
(5) **Batch** (`batch.py`): the rows of a micro-batch, stacked into tensors [b, t]. This is what a model receives.
"""
