"""Neighbours, one module each: `mumott`, `astra`, `tomosipo`, `deepinv`. Importing one of these modules does not import
its neighbour; that happens inside the functions that need it, and a missing one is named with the line that installs
it."""
