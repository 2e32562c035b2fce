"""Texts of the spec that become part of a URL, a command line or a configuration, with the form that they need there.

What has another form would be admitted, and fail in a pod, where nobody looks first. The patterns are Go's, too.
"""

from typing import Annotated

from msgspec import Meta

_HOST = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\.?|\[([0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]{0,15}\])"
_PORT_NUMBER = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # 1 to 65535
_ADDRESS = f"{_HOST}(:{_PORT_NUMBER})?"
_USER = r"(([^\s/?#@:,%\[\]]|%[0-9A-Fa-f]{2})+@)?"
_DATABASE = "(/[0-9]{0,5})?"
_FILES = r"([?](ca|cert|key)=[^\s&#]+(&(ca|cert|key)=[^\s&#]+)*)?"

STORE_URL = (
    f"^(redis://{_USER}{_ADDRESS}{_DATABASE}|rediss://{_USER}{_ADDRESS}{_DATABASE}{_FILES}"
    rf"|redis\+sentinel://{_USER}{_ADDRESS}(,{_ADDRESS})*/[^\s/?#]+{_DATABASE})$"
)
"""What `multipick_epp.state.redis.address` reads of it, less passwords."""
STORE_URL_WORDS = (
    "redis://[user@]host[:port][/database], rediss:// for TLS, perhaps with ?ca=FILE, or "
    "redis+sentinel://[user@]host[:port],host[:port].../service[/database]"
)
StoreUrl = Annotated[str, Meta(max_length=1024, pattern=STORE_URL)]

HTTP_URL = f"^https?://{_ADDRESS}([/?][!-~]*)?$"
HttpUrl = Annotated[str, Meta(max_length=1024, pattern=HTTP_URL)]

UrlPath = Annotated[str, Meta(max_length=1024, pattern=r"^/([-A-Za-z0-9._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*$")]
"""RFC 3986; a gateway refuses others, if it says so at all."""
HeaderValue = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[!-~]([ \t!-~]*[!-~])?$")]

_IMAGE = (
    rf"([A-Za-z0-9.-]+(:{_PORT_NUMBER})?/)?[a-z0-9]+((/|[.]|__?|-+)[a-z0-9]+)*"
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[a-z0-9]+:[0-9a-f]{32,128})?"
)
IMAGE = f"^{_IMAGE}$"
"""A reference as container runtimes read it: others end as InvalidImageName, pod by pod."""
IMAGE_WORDS = "the name of an image, such as registry.example.com/vllm:v1, without https://"
ImageName = Annotated[str, Meta(min_length=1, max_length=512, pattern=IMAGE)]

_NAME = r"[^-\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*"
ServedName = Annotated[str, Meta(min_length=1, max_length=253, pattern=f"^{_NAME}$")]
"""What begins with a hyphen is an option on an engine's command line."""
LoadedName = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^-\s=,{\x00-\x1f\x7f][^=,\x00-\x1f\x7f]*$")]
"""The same, where engines get `name=path`."""
Topic = Annotated[str, Meta(max_length=253, pattern=f"^({_NAME})?$")]
Revision = Annotated[str, Meta(min_length=1, max_length=253, pattern="^[A-Za-z0-9][A-Za-z0-9._/-]*$")]

_REPOSITORY = "[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^\s=,]*)?"
_PATH = r"/[^\s=,]*"
_BUCKET = r"s3://[A-Za-z0-9][A-Za-z0-9._-]*(/[^\s]*)?"
ARTIFACT = f"^(hf://{_REPOSITORY}|{_REPOSITORY}|{_CLAIM}|oci://{_IMAGE}|{_PATH}|{_BUCKET})$"
ArtifactUri = Annotated[str, Meta(max_length=1024, pattern=ARTIFACT)]
ADAPTER = f"^(hf://{_REPOSITORY}|{_REPOSITORY}|{_CLAIM}|oci://{_IMAGE}|{_PATH})$"
AdapterUri = Annotated[str, Meta(max_length=1024, pattern=ADAPTER)]
VOLUME = f"^({_CLAIM}|oci://{_IMAGE}|{_PATH})$"
VolumeUri = Annotated[str, Meta(max_length=1024, pattern=VOLUME)]
MountPath = Annotated[str, Meta(max_length=253, pattern="^/[!-9;-~]+$")]
"""A folder below the root, without the colon that runtimes part such paths by."""
