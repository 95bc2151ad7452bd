"""The map of a run as a page and as pictures: data files, templates, figures."""
