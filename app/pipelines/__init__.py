"""decode -> route -> prepare -> run -> finish, one module a family."""
