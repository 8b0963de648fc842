"""Files of jobs in an artefact store that gateways on several hosts share."""
