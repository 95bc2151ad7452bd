"""What is in a dataset, and what an auditor should know before any audit; `overview.survey` does it all."""
