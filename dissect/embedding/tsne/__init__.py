"""t-SNE (van der Maaten and Hinton 2008) of millions of points, by fast Fourier transforms (Linderman et al. 2019)."""
