"""Documents in, a model that knows them out, with proof: the parts of `mora teach`."""
