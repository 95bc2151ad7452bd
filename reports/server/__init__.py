"""The served explorer: the pages of a run over HTTP, and what the run's model explains on demand."""
