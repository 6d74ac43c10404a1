"""URIs of a storage: which ones are taken, and how they are joined. Nothing is opened here."""

from urllib.parse import parse_qsl, quote, unquote, urlsplit

from rollout.errors import InputError, did_you_mean

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""What pyarrow's file systems are called by."""
SECRET = ("secret", "password", "token", "access_key", "account_key")
"""Parts of the names of options that hold a secret."""


def is_uri(place: str) -> bool:
    """Whether a text names a place in a storage, and no folder of a host."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def check_uri(uri: str) -> None:
    """Raises InputError, without the URI in its text, unless it names a folder of a storage and holds no secret."""
    scheme, found, _ = uri.partition("://")
    if not found or scheme not in SCHEMES:
        raise InputError(
            f"is no URI of a storage{did_you_mean(scheme, SCHEMES)}; write {', '.join(f'{each}://…' for each in SCHEMES)}"
        )
    try:
        parts = urlsplit(uri)
        options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as problem:
        raise InputError(f"is no URI: {problem}") from None
    # The user of an abfs URI is the container, and that of a gs one may be `anonymous`.
    user = parts.username if scheme == "s3" else ""
    if user or parts.password or any(part in name.lower() for name in options for part in SECRET):
        raise InputError(
            "holds a secret, which would be written to the files of the run; take it out, and give it by the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on a cluster `rayzero submit --env NAME`) or by the hosts' own role"
        )
    if not (parts.path.strip("/") if scheme == "file" else parts.netloc):
        raise InputError(
            "names no folder; write " + ("file:///FOLDER" if scheme == "file" else f"{scheme}://BUCKET/PREFIX")
        )
    if scheme == "file" and parts.netloc:
        raise InputError(f"names a host, {parts.netloc}; write file:///FOLDER, with three slashes")


def inside(uri: str, name: str) -> str:
    """The URI of what has the relative path `name` in the folder of a URI."""
    parts = urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def split(uri: str) -> tuple[str, str]:
    """(URI of the folder above, name in it)."""
    parts = urlsplit(uri)
    above, _, name = parts.path.rstrip("/").rpartition("/")
    return parts._replace(path=above).geturl(), unquote(name)


def shown(uri: str) -> str:
    """The URI for a reader: without its options."""
    return urlsplit(uri)._replace(query="").geturl()
