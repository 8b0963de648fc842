"""The Helm chart and its checks."""
