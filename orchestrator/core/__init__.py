"""Pure foundations: no clock, no socket, no thread, no unseeded chance lives below this package."""
