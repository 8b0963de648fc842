"""A whole service beyond one machine: hosts, parts that are killed, a load with known answers."""
