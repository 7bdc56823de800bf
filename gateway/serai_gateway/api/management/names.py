"""Names that nobody gets who asks for an account or an organization."""

#: What stands in our own paths, or would pass for the platform itself. Upper and lower case alike.
RESERVED = frozenset(
    {
        *("admin", "administrator", "algorithmia", "help", "official", "root", "security", "serai", "staff", "support"),
        *("about", "account", "accounts", "algo", "algorithms", "api", "blog", "builds", "calls", "connector", "data"),
        *("docs", "git", "health", "healthz", "home", "jobs", "keys", "login", "logout", "logs", "me", "members"),
        *("metrics", "models", "my", "new", "openapi", "operator", "organization", "organizations", "orgs", "pool"),
        *("pricing", "publish", "readyz", "register", "search", "secrets", "settings", "signin", "signup", "static"),
        *("status", "system", "teams", "terms", "user", "users", "v1", "v2", "versions", "web", "www"),
        *("anonymous", "everybody", "everyone", "nobody", "null", "none", "undefined"),
    }
)


def is_reserved(name: str) -> bool:
    return name.lower() in RESERVED
