"""Names of models and addresses of servers as the `ollama` command takes them."""

from urllib.parse import urlsplit

from stages.errors import InputError

REGISTRY, NAMESPACE, TAG, PORT = "registry.ollama.ai", "library", "latest", 11434
DEFAULT_PORTS = {"http": 80, "https": 443}


def full_name(name: str) -> str:
    """The name with its default registry, namespace and tag, in lower case: equal for all names of one model.

    `Glm4` → `registry.ollama.ai/library/glm4:latest`. Source: ollama's types/model/name.go.
    """
    path = name.split("://")[-1].lower()
    if path.rfind(":") <= path.rfind("/"):  # a colon before a slash belongs to a port
        path += f":{TAG}"
    parts = path.split("/", 2)
    return "/".join([REGISTRY, NAMESPACE][: 3 - len(parts)] + parts)


def base_url(host: str) -> str:
    """The server's URL: `host`, `host:port`, `:port` and URLs, as OLLAMA_HOST takes them; port 11434 by default.

    Raises InputError for what is no address. Source: ollama's envconfig/config.go.
    """
    scheme, separator, rest = host.strip().rpartition("://")
    try:
        address = urlsplit(f"{scheme or 'http'}://{rest}")
        port = address.port or (DEFAULT_PORTS.get(scheme, PORT) if separator else PORT)
    except ValueError as error:
        raise InputError(f"ollama.hosts: {host!r} is no address ({error}): write it as host:port") from error
    if address.scheme not in DEFAULT_PORTS:
        raise InputError(f"ollama.hosts: {host!r} is neither http nor https: write it as host:port")
    name = address.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # a server listens there, a client cannot connect
    return f"{address.scheme}://{f'[{name}]' if ':' in name else name}:{port}{address.path.rstrip('/')}"
