"""Figures for papers: what is drawn (marks), the drawings themselves, and each as SVG, PNG and CSV."""
