"""multipart/form-data: fields by name, whole in memory, for the body's size is bounded."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from epd.errors import BadRequest

MOST_FIELDS = 32


def read_form(raw: bytes, content_type: str) -> dict[str, bytes]:
    """Each name once. BadRequest says what is no form."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest(
            "the body must be multipart/form-data with a boundary", param="content-type"
        )
    form = _Form()
    in_memory = {"MAX_FIELDS": MOST_FIELDS, "MAX_MEMORY_FILE_SIZE": len(raw) + 1}
    try:
        parser = FormParser(
            "multipart/form-data",
            form.take_field,
            form.take_file,
            form.end,
            boundary=boundary,
            config=in_memory,
        )
        parser.write(raw)
        parser.finalize()
    except FormParserError:
        form.ended = False
    if not form.ended:
        raise BadRequest("the body is no complete multipart/form-data")
    return form.fields


class _Form:
    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.ended = False

    def take_field(self, field: Field) -> None:
        self._take(field.field_name, field.value or b"")

    def take_file(self, file: File) -> None:
        file.file_object.seek(0)
        self._take(file.field_name, file.file_object.read())
        file.close()

    def end(self) -> None:
        self.ended = True

    def _take(self, name: bytes | None, value: bytes) -> None:
        field = (name or b"").decode("utf-8", "replace")
        if field in self.fields:
            raise BadRequest(f"{field} is given twice", param=field)
        self.fields[field] = value
