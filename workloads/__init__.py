"""What benchmarks and experiments share: CNN-9, its training on JAX, and the machine."""
