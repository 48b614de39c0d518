"""What benchmarks and experiments share: the CNN-9 model and a description of the machine."""
