"""decode -> route -> prepare -> run -> finish, one module per family."""
