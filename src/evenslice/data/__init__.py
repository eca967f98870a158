"""Where data comes from: public data sets and a phantom of our own."""
