"""Measures the time and memory of energies, as ratios to the matrix product that they require."""
