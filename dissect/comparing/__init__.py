"""Two runs compared: units matched by correlation, concepts gained and lost, detectors by layer."""
