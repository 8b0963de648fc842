"""Parts that run the gateway somewhere: on one machine, in a container, under Prometheus and Grafana."""
