"""What a network takes for similar: principal components, nearest neighbours and maps of a whole dataset."""
