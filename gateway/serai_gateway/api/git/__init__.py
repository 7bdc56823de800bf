"""git over HTTP at /git/OWNER/NAME.git: clone, fetch, and push, which builds."""
