"""Networks, likelihoods, corruption, and the one loop that trains them."""
