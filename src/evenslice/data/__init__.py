"""Where data comes from: public datasets and a phantom of our own."""
