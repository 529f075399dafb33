"""hello: HTTP/1.1 in a coroutine: keep-alive, pipelining, bodies by Content-Length, limits and timeouts."""

from dataclasses import dataclass

from gaiod import CoroutineHandler, Duration, EndOfStream, LimitExceeded, Size, Stream

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
           413: "Content Too Large", 431: "Request Header Fields Too Large", 501: "Not Implemented"}  # fmt: skip


class HttpError(Exception):
    """A request that is answered with an error, and ends its connection."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Request:
    """What a client asks."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keeps_alive: bool


class Hello(CoroutineHandler):
    """`GET /` says hello; `POST /echo` says the body; everything else is not found."""

    @dataclass
    class Options:
        """What `with:` may say."""

        name: str = "world"
        patience: Duration = 30.0
        head_max: Size = 16384
        body_max: Size = 1 << 20

    async def handle(self, conn: Stream) -> None:
        try:
            while (request := await self.request(conn)) is not None:
                code, body = self.answer(request)
                await self.respond(conn, code, body, request.keeps_alive, request.method != "HEAD")
                if not request.keeps_alive:
                    break
        except HttpError as error:
            await self.respond(conn, error.code, REASONS[error.code].encode(), False)
        except TimeoutError:
            await self.respond(conn, 408, b"", False)

    def answer(self, request: Request) -> tuple[int, bytes]:
        match request.method, request.path:
            case (("GET" | "HEAD"), "/"):
                return 200, f"hello, {self.options.name}\n".encode()
            case "POST", "/echo":
                return 200, request.body
            case _, ("/" | "/echo"):
                return 405, b""
        return 404, b""

    async def request(self, conn: Stream) -> Request | None:
        """Read the next request; None: the client has no more."""
        try:
            head = await conn.read_until(b"\r\n\r\n", limit=self.options.head_max, timeout=self.options.patience)
        except LimitExceeded:
            raise HttpError(431) from None
        except EndOfStream as end:
            if end.partial:
                raise
            return None
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if (
                not colon or name != name.strip() or name.lower() in headers
            ):  # a name twice is two readings of one request
                raise HttpError(400)
            headers[name.lower()] = value.strip()
        match first.split(" "):
            case [method, path, ("HTTP/1.1" | "HTTP/1.0") as version] if path.startswith("/"):
                pass
            case _:
                raise HttpError(400)
        if "transfer-encoding" in headers:
            raise HttpError(501)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise HttpError(400)
        if int(length) > self.options.body_max:
            raise HttpError(413)
        body = await conn.read_exactly(int(length), timeout=self.options.patience)
        wish = headers.get("connection", "keep-alive" if version == "HTTP/1.1" else "close").lower()
        return Request(method, path, headers, body, wish != "close")

    async def respond(self, conn: Stream, code: int, body: bytes, keeps_alive: bool, has_body: bool = True) -> None:
        head = f"HTTP/1.1 {code} {REASONS[code]}\r\nContent-Length: {len(body)}\r\n"
        head += "\r\n" if keeps_alive else "Connection: close\r\n\r\n"
        await conn.write(head.encode() + (body if has_body else b""))
