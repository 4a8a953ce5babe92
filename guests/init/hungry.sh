# A program with much memory: 1 GiB touched at random, then shared with a child until one writes.
hungry 1024 2000000
