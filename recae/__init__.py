"""recae: autoencoder recommenders, from an interaction log to compared, tracked rankings and embeddings."""
