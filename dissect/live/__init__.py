"""The model of a finished run, opened when it is first asked for, and what it explains on demand."""
