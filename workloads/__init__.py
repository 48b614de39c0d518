"""What benchmarks and experiments share: networks, their training on JAX, and the machine."""
